"""Labels of studies, and rules that give labels to new studies."""
