"""A recipe carried out: student, training, bundle, and what came of it beside its teacher."""
