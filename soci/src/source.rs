//! Where images come from: a registry (more in later issues).
