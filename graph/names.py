"""GraphQL names by the rule of `models.names`."""

from strawberry.schema.name_converter import NameConverter

from models.names import contract_name


class ContractNames(NameConverter):
    """Spells fields and arguments as DICOM keywords with a lower first letter."""

    def apply_naming_config(self, name: str) -> str:
        """Return the public name of a Python name."""
        return contract_name(name)
