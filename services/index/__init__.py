"""The index in MongoDB: records of instances, and parents rolled up from them."""
