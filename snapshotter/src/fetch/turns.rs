//! Turns that many wait for, shared out so that no host and no image can take all of them. No I/O here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;

/// One semaphore for each name that somebody has one of; each has as many permits.
#[derive(Debug)]
pub(crate) struct Turns {
    permits: usize,
    all: Mutex<HashMap<String, Weak<Semaphore>>>,
}

impl Turns {
    /// Semaphores of `permits` permits each, at least one.
    pub(crate) fn new(permits: usize) -> Self {
        Self { permits: permits.clamp(1, Semaphore::MAX_PERMITS), all: Mutex::default() }
    }

    /// The semaphore of `name`. It is remembered while somebody holds it, or a permit of it.
    pub(crate) fn of(&self, name: &str) -> Arc<Semaphore> {
        // No code panics while holding it.
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = all.get(name).and_then(Weak::upgrade) {
            return found;
        }
        all.retain(|_, turns| turns.strong_count() > 0);
        let new = Arc::new(Semaphore::new(self.permits));
        all.insert(name.to_owned(), Arc::downgrade(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_its_own_while_it_is_used() {
        let turns = Turns::new(1);
        let held = turns.of("a").try_acquire_owned().expect("free");
        assert!(turns.of("a").try_acquire_owned().is_err());
        assert!(turns.of("b").try_acquire_owned().is_ok());
        drop(held);
        assert!(turns.of("a").try_acquire_owned().is_ok());
        turns.of("c");
        assert_eq!(turns.all.lock().expect("not poisoned").len(), 1, "the others are forgotten");
    }
}
