from pathlib import Path

from image_build.source import checkout
from image_build.wheelhouse import LLAMA_OPTIONS


def test_llama_cpp_is_built_as_on_a_developer_s_machine() -> None:
    """Both lists of options are kept by hand: the script must not need Python."""
    script = (checkout() / "scripts" / "setup").read_text()
    for option in LLAMA_OPTIONS:
        name, _, value = option.partition("=")
        assert f"{name}=" in script, option
        assert Path(value).name in script, option
