//! Generated gRPC types of containerd's services and of the Kubernetes container runtime interface (CRI), with the
//! one way to reach either over a unix socket.
//!
//! The code in `generated/` is made from the definitions in `protos/` by the test `generated`, which also proves that
//! it is up to date; nothing here is generated at build time.

mod channel;

pub use channel::{ConnectError, connect};

/// containerd's own services and the types they share.
#[allow(missing_docs, missing_debug_implementations, clippy::all, unused_qualifications)]
pub mod containerd {
    /// Types that several services use.
    pub mod types {
        include!("generated/containerd.types.rs");
    }
    /// The services, each by its name in the API.
    pub mod services {
        /// Blobs by digest.
        pub mod content {
            #[allow(missing_docs)]
            pub mod v1 {
                include!("generated/containerd.services.content.v1.rs");
            }
        }
        /// Applying and computing layer differences.
        pub mod diff {
            #[allow(missing_docs)]
            pub mod v1 {
                include!("generated/containerd.services.diff.v1.rs");
            }
        }
        /// Names of images.
        pub mod images {
            #[allow(missing_docs)]
            pub mod v1 {
                include!("generated/containerd.services.images.v1.rs");
            }
        }
        /// Leases: what the garbage collector must leave alone.
        pub mod leases {
            #[allow(missing_docs)]
            pub mod v1 {
                include!("generated/containerd.services.leases.v1.rs");
            }
        }
        /// Snapshots: the service that the daemon implements.
        pub mod snapshots {
            #[allow(missing_docs)]
            pub mod v1 {
                include!("generated/containerd.services.snapshots.v1.rs");
            }
        }
        /// Version of the running containerd.
        pub mod version {
            #[allow(missing_docs)]
            pub mod v1 {
                include!("generated/containerd.services.version.v1.rs");
            }
        }
    }
}

/// The container runtime interface, `runtime.v1`: what a kubelet speaks to containerd.
#[allow(missing_docs, missing_debug_implementations, clippy::all, unused_qualifications)]
pub mod cri {
    include!("generated/runtime.v1.rs");
}
