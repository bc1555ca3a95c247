//! Tables as the kernel sees them: mounted over a tar and compared with what GNU `tar` makes of it, as lower layers of an
//! overlay, at the format's bounds; and what is refused.

mod bounds;
mod compare;
mod golden;
mod hostile;
mod model;
mod mounts;
mod overlay;
mod tarball;
mod trees;
