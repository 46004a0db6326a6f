"""Lists of studies and patients: filters, orders and keyset pages, planned without I/O."""
