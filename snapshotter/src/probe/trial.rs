//! The trial's file in the device: it can hold answers back until a second request has come.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::table::Plan;
use crate::Error;
use crate::device::{Backing, ReadReply};

/// How long a second request is waited for. Where the kernel sends several, they come within microseconds.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) struct Trial {
    pub(super) plan: Plan,
    held: Mutex<Held>,
    two: Notify,
}

#[derive(Default)]
struct Held {
    /// Whether answers are held back.
    holding: bool,
    reads: Vec<(u64, usize, ReadReply)>,
}

impl Trial {
    pub(super) fn new(plan: Plan) -> Self {
        Self { plan, held: Mutex::default(), two: Notify::new() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // No code panics while holding it.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on answers are held back.
    pub(super) fn hold(&self) {
        self.held().holding = true;
    }

    /// Waits until two requests are held back, or none has followed the first for a while; then answers all. Says whether
    /// there were two.
    pub(super) async fn together(&self) -> bool {
        let two = tokio::time::timeout(PATIENCE, self.two.notified()).await.is_ok();
        let reads = {
            let mut held = self.held();
            held.holding = false;
            std::mem::take(&mut held.reads)
        };
        for (offset, len, reply) in reads {
            self.answer(offset, len, reply);
        }
        two
    }

    fn answer(&self, offset: u64, len: usize, reply: ReadReply) {
        if offset >= self.plan.broken_start() {
            return reply.fail(&Error::Unavailable("the kernel's probe reads what can't be read".to_owned()));
        }
        reply.data(&self.plan.bytes(offset, len));
    }
}

impl Backing for Trial {
    fn read(&self, offset: u64, len: usize, reply: ReadReply) {
        {
            let mut held = self.held();
            if held.holding {
                held.reads.push((offset, len, reply));
                if held.reads.len() >= 2 {
                    self.two.notify_one();
                }
                return;
            }
        }
        self.answer(offset, len, reply);
    }
}
