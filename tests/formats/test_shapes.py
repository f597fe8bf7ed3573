"""The shapes that a file must have are those of the model that is built from it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gptlib.formats.shapes import weight_shapes
from gptlib.model.config import GPTConfig
from gptlib.model.gpt import GPT

configs = st.builds(
    lambda heads, groups, width, **rest: GPTConfig(
        n_head=heads * groups, n_kv_head=heads, n_embd=2 * heads * groups * width, **rest),
    st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), vocab_size=st.integers(1, 30),
    context_length=st.integers(1, 20), n_layer=st.integers(1, 3),
    mlp_hidden=st.none() | st.integers(1, 9), position=st.sampled_from(["learned", "rope"]),
    norm=st.sampled_from(["layernorm", "rmsnorm"]), bias=st.booleans(),
    activation=st.sampled_from(["gelu", "relu2", "swiglu"]), tie_weights=st.booleans(),
    qk_norm=st.booleans(), zero_init=st.booleans())


@settings(max_examples=60, deadline=None)
@given(configs)
def test_the_shapes_that_a_file_must_have_are_those_of_the_model(config):
    model = GPT(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert dict(weight_shapes(config)) == shapes
    assert config.num_parameters() == model.num_parameters()
