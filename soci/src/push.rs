//! Pushes an index: zTOCs first, the manifest last.
