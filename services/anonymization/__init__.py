"""Studies made of other studies: without the identity of the patient, or with other values."""
