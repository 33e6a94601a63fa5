"""The built-in teacher, made by `edgeclip train recipes/tabletop-teacher.toml`; the texts of `data.pictures`."""
