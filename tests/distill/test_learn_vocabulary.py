"""A vocabulary is a function of the captions that it is learned from."""

from edgeclip.distill.learn_vocabulary import learn_vocabulary

CAPTIONS = ["a red ball on the table", "two blue boxes", "a photo of a small green star", "large white mug in the snow"]


def test_the_same_captions_give_the_same_tokens():
    learned = {str(learn_vocabulary(CAPTIONS, 600, 16).token_ids(CAPTIONS)) for _ in range(20)}
    assert len(learned) == 1
