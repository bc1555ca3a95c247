//! Makes an image name its own index (version 2).

pub mod edit;
