from graph.types.instance import Instance
from graph.types.stored import _attributes
from services.query.tree import INSTANCE_SHOWN


def test_a_tree_reads_what_an_instance_shows() -> None:
    shown = {stored_name for _, stored_name, _ in _attributes(Instance)}
    assert shown == {"_id", *INSTANCE_SHOWN}
