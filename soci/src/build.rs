//! Builds the zTOCs and the index manifest of an image.
