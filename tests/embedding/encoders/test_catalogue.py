import open_clip
import pytest

from transmiter_cli.embedding.encoders import catalogue

TAGGED = open_clip.list_pretrained()


def test_architectures_and_tags_are_open_clips_own():
    assert set(catalogue.architectures()) == set(open_clip.list_models())
    assert [(name, tag) for name, tags in catalogue.published_weights().items() for tag in tags] == TAGGED


@pytest.mark.parametrize("architecture", sorted({name for name, _ in TAGGED}))
def test_activations_are_those_the_weights_were_trained_with(architecture: str):
    for tag, published in catalogue.tags_of(architecture).items():
        quick_gelu = architecture == "roberta-ViT-B-32" or published.get("quick_gelu", False)
        assert catalogue.uses_quick_gelu(architecture, tag) == quick_gelu


def test_all_published_weights_have_a_repository_and_file_names():
    for tags in catalogue.published_weights().values():
        for published in tags.values():
            repository, files = catalogue.repository_of(published)
            assert repository.count("/") == 1
            assert files[0].endswith(".safetensors")
            assert len(files) == 2


def test_preprocessing_is_shared_only_where_all_weights_agree():
    assert catalogue.common_preprocess("ViT-B-16-SigLIP")["mean"] == [0.5, 0.5, 0.5]
    assert catalogue.common_preprocess("ViT-L-14") == {}
    assert catalogue.common_preprocess("ViT-S-16") == {}
