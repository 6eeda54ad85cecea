"""Objectives in the formats of others: read from OpenSLO, Sloth and Pyrra, written as OpenSLO and as our own file.

    found = import_slos("sloth.yaml", "sloth")
    Path("slo.toml").write_text(dump_toml(found.file))
    Path("openslo.yaml").write_text(dump_openslo(found.file).text)

Nothing is lost in silence: what is wrong, or means what we cannot say, is a problem with its path, all of them at once; what is said
otherwise here, or not at all, is a note. YAML needs PyYAML: ``pip install "somaresil[yaml]"``.
"""

from somaresil.interchange.load import FORMATS, Imported, import_slos, import_text
from somaresil.interchange.openslo_write import Exported, dump_openslo
from somaresil.interchange.toml import dump_toml

__all__ = ["FORMATS", "Exported", "Imported", "dump_openslo", "dump_toml", "import_slos", "import_text"]
