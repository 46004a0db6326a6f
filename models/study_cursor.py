"""Up to where a background task has looked at changes of studies."""

from datetime import datetime

from models.stored import NamedDocument


class StudyCursorDocument(NamedDocument):
    """One cursor; `_id` names the task. It moves when everything before it is done."""

    reached: datetime

    class Settings:
        """Collection."""

        name = "studyCursors"
