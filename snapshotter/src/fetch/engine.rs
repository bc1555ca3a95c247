//! Carries out what the planner decides: one for the node, shared by the spans of all layers. It holds the planner's lock
//! for moments, tells it what happened, and starts the requests that it asks for.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use spandrel_ztoc::SpanTable;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::planner::{Background, Class, End, LayerId, Next, Order, OrderId, Planner, Rules};
use super::spans::Spans;
use super::worker;
use crate::Error;
use crate::cache::{Fresh, Ledger};
use crate::metrics::Metrics;

/// What operators choose.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Answers that are received at a time.
    pub max_fetches: usize,
    /// Bytes of decoded spans in memory at a time.
    pub memory_budget: u64,
    /// How long a read waits for its span.
    pub read_timeout: Duration,
    /// How long a failed span goes on failing.
    pub failure_memory: Duration,
    /// When the rest of layers is fetched that nobody has asked for.
    pub background: Background,
    /// Most bytes a second that this takes, if there is to be a limit.
    pub background_rate: Option<u64>,
}

/// Memory that is counted against the budget until this is dropped.
#[derive(Debug)]
pub(crate) struct Memory {
    engine: Arc<Engine>,
    host: Arc<str>,
    len: u64,
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.engine.plan().release(&self.host, self.len);
        self.engine.pump();
    }
}

/// A layer that is being filled in full, until this is dropped: the background keeps out of its way.
#[derive(Debug)]
pub(super) struct Filling {
    engine: Arc<Engine>,
    host: String,
}

impl Drop for Filling {
    fn drop(&mut self) {
        self.engine.plan().filling(&self.host, false);
        self.engine.pump();
    }
}

/// Somebody who waits for memory.
#[derive(Debug)]
struct Waiting {
    host: Arc<str>,
    len: u64,
    granted: oneshot::Sender<Memory>,
}

/// What the fetching of all layers of a node has in common.
#[derive(Debug)]
pub(crate) struct Engine {
    planner: Mutex<Planner>,
    layers: RwLock<HashMap<LayerId, Weak<Spans>>>,
    /// Those who wait for memory, in order.
    waiting: Mutex<VecDeque<Waiting>>,
    /// The next moment at which the planner is to be asked by itself.
    wake: Mutex<Option<Duration>>,
    /// Notified when requests that gave way may go on.
    resume: Notify,
    /// Moments are counted from here.
    began: Instant,
    runtime: Handle,
    memory_budget: u64,
    /// Whether there is a background at all.
    pub(super) completes_layers: bool,
    pub(super) read_timeout: Duration,
    pub(super) failure_memory: Duration,
    pub(crate) metrics: Arc<Metrics>,
    /// What is written, and whether there is room.
    pub(crate) ledger: Arc<Ledger>,
    /// Spans that were written lately.
    pub(super) fresh: Fresh<(Weak<Spans>, u32)>,
    /// Fetches and writes under way.
    pub(crate) tasks: TaskTracker,
}

impl Engine {
    /// To be called within a tokio runtime, where the fetching goes on.
    pub(crate) fn new(settings: &Settings, metrics: Arc<Metrics>) -> Arc<Self> {
        let tasks = TaskTracker::new();
        // A closed tracker still takes tasks; it can be waited for.
        tasks.close();
        let rules = Rules {
            max_requests: settings.max_fetches.max(1),
            memory: settings.memory_budget.max(1),
            background: settings.background,
            background_rate: settings.background_rate,
        };
        Arc::new(Self {
            planner: Mutex::new(Planner::new(rules)),
            layers: RwLock::default(),
            waiting: Mutex::default(),
            wake: Mutex::default(),
            resume: Notify::new(),
            began: Instant::now(),
            runtime: Handle::current(),
            memory_budget: settings.memory_budget.max(1),
            completes_layers: settings.background != Background::Off,
            read_timeout: settings.read_timeout,
            failure_memory: settings.failure_memory,
            metrics,
            ledger: Arc::default(),
            fresh: Fresh::default(),
            tasks,
        })
    }

    fn plan(&self) -> MutexGuard<'_, Planner> {
        // No code panics while holding it.
        self.planner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Where the work goes on.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// A layer of `host` with these spans, of which `here` are there. `make` is given its number.
    pub(super) fn add(
        &self,
        host: &str,
        table: Arc<SpanTable>,
        here: impl Fn(u32) -> bool,
        make: impl FnOnce(LayerId) -> Arc<Spans>,
    ) -> Arc<Spans> {
        let id = self.plan().add(host, table, here);
        let spans = make(id);
        let mut layers = self.layers.write().unwrap_or_else(PoisonError::into_inner);
        layers.insert(id, Arc::downgrade(&spans));
        spans
    }

    /// The layer is of no concern any more.
    pub(super) fn remove(&self, id: LayerId) {
        self.layers.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        self.plan().remove(id);
    }

    /// Nothing of the layer is wanted now.
    pub(super) fn forget(&self, id: LayerId) {
        self.plan().forget(id);
    }

    /// The layer may be fetched in the background from now on, or not any more.
    pub(super) fn background(self: &Arc<Self>, id: LayerId, on: bool) {
        let now = self.now();
        self.plan().background_of(id, on, now);
        self.pump();
    }

    /// A layer of `host` is being filled in full from now on.
    pub(super) fn filling(self: &Arc<Self>, host: &str) -> Filling {
        self.plan().filling(host, true);
        Filling { engine: Arc::clone(self), host: host.to_owned() }
    }

    /// A reader, who is at span `at` of the layer, wants spans that are `missing`, and some that are on their way.
    pub(super) fn demand(self: &Arc<Self>, id: LayerId, missing: &[u32], flying: &[u32], at: Option<u32>) {
        {
            let (mut planner, now) = (self.plan(), self.now());
            for span in missing {
                planner.want(id, *span, Class::Demand);
            }
            for span in flying {
                planner.promote(id, *span, Class::Demand);
            }
            if let Some(at) = at {
                planner.touched(id, at, now);
            }
        }
        if !flying.is_empty() {
            // One of them may have given way, and may not any more.
            self.resume.notify_waiters();
        }
        self.pump();
    }

    /// These spans are known to be needed, in this order. Gives how many of them are on their way now that weren't.
    pub(super) fn prefetch(self: &Arc<Self>, id: LayerId, spans: impl IntoIterator<Item = u32>) -> usize {
        let count = self.plan().prefetch(id, spans);
        self.pump();
        count
    }

    /// Spans that had come are missing.
    pub(super) fn lost(&self, id: LayerId, span: u32) {
        self.plan().lost(id, span);
    }

    /// Starts what there is to start.
    pub(super) fn pump(self: &Arc<Self>) {
        loop {
            self.grant();
            let now = self.now();
            let next = self.plan().next(now);
            match next {
                Next::Send(order) => self.send(order),
                Next::Wait(at) => {
                    if let Some(at) = at {
                        self.wake_at(at);
                    }
                    return;
                }
            }
        }
    }

    fn send(self: &Arc<Self>, order: Order) {
        let found = self.layers.read().unwrap_or_else(PoisonError::into_inner).get(&order.layer).cloned();
        let Some(spans) = found.and_then(|spans| spans.upgrade()) else {
            // It is being dropped.
            let total = order.memory.iter().sum();
            let mut planner = self.plan();
            planner.ended(order.id, End::Stopped, 0, Duration::ZERO, self.now());
            planner.remove(order.layer);
            planner.release(&order.host, total);
            return;
        };
        self.tasks.spawn_on(worker::carry_out(spans, Arc::clone(self), order), &self.runtime);
    }

    /// Asks the planner again at this moment, unless it is asked before.
    fn wake_at(self: &Arc<Self>, at: Duration) {
        let mut wake = self.wake.lock().unwrap_or_else(PoisonError::into_inner);
        if wake.is_some_and(|have| have <= at) {
            return;
        }
        *wake = Some(at);
        let (this, until) = (Arc::downgrade(self), self.began + at);
        self.runtime.spawn(async move {
            tokio::time::sleep_until(until).await;
            let Some(this) = this.upgrade() else { return };
            {
                let mut wake = this.wake.lock().unwrap_or_else(PoisonError::into_inner);
                if *wake == Some(at) {
                    *wake = None;
                }
            }
            this.pump();
        });
    }

    /// The memory of an order, a piece for each of its spans.
    pub(super) fn memory_of(self: &Arc<Self>, order: &Order) -> Vec<Memory> {
        let piece = |len: &u64| Memory { engine: Arc::clone(self), host: Arc::clone(&order.host), len: *len };
        order.memory.iter().map(piece).collect()
    }

    /// Waits until `len` bytes of a layer of `host` may be in memory; what is longer than a host's share waits for all of it.
    pub(crate) async fn memory(self: &Arc<Self>, host: &str, len: u64) -> Memory {
        let (granted, memory) = oneshot::channel();
        let len = len.min(self.memory_budget);
        let waiting = Waiting { host: host.into(), len, granted };
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(waiting);
        self.grant();
        memory.await.expect("whoever waits is granted memory before it is taken from the list")
    }

    /// Gives memory to those who wait for it, first come, first served. One who can't have it yet holds up those of the same
    /// host only.
    fn grant(self: &Arc<Self>) {
        let mut given = Vec::new();
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.is_empty() {
                return;
            }
            let mut planner = self.plan();
            let mut full: Vec<Arc<str>> = Vec::new();
            let all = std::mem::take(&mut *waiting);
            for one in all {
                if one.granted.is_closed() {
                    continue;
                }
                if full.contains(&one.host) || !planner.take(&one.host, one.len) {
                    full.push(Arc::clone(&one.host));
                    waiting.push_back(one);
                } else {
                    given.push(one);
                }
            }
        }
        for one in given {
            let memory = Memory { engine: Arc::clone(self), host: one.host, len: one.len };
            // Dropped, and so given back, where nobody waits any more.
            drop(one.granted.send(memory));
        }
    }

    /// Waits until a request may go on taking bytes.
    pub(super) async fn turn(&self, order: OrderId) {
        loop {
            let mut resumed = std::pin::pin!(self.resume.notified());
            resumed.as_mut().enable();
            if self.plan().may_receive(order) {
                return;
            }
            resumed.await;
        }
    }

    /// The first byte of an answer came `after` it was asked for.
    pub(super) fn first_byte(&self, order: OrderId, after: Duration) {
        self.plan().first_byte(order, after);
    }

    /// Bytes of an answer have come.
    pub(super) fn received(&self, order: OrderId, len: u64) {
        self.plan().received(order, len);
        self.metrics.fetched_bytes.inc_by(len);
    }

    /// A span has come; says why it was fetched.
    pub(super) fn landed(&self, order: OrderId, span: u32) -> Option<Class> {
        let now = self.now();
        let class = self.plan().landed(order, span, now);
        self.resume.notify_waiters();
        class
    }

    /// A request has ended.
    pub(super) fn ended(self: &Arc<Self>, order: OrderId, end: End, len: u64, body: Duration) {
        let now = self.now();
        self.plan().ended(order, end, len, body, now);
        self.resume.notify_waiters();
        self.pump();
    }

    /// How long a request of this layer waits for its first byte before it is sent a second time.
    pub(super) fn hedge_after(&self, id: LayerId) -> Option<Duration> {
        self.plan().hedge_after(id)
    }

    /// A request of this layer is sent a second time.
    pub(super) fn hedged(&self, id: LayerId) {
        self.plan().hedged(id);
    }

    /// Bytes of the memory budget that are free now.
    #[cfg(test)]
    pub(super) fn free_memory(&self) -> u64 {
        self.memory_budget - self.used_memory()
    }

    /// Bytes of it that are in use.
    #[cfg(test)]
    pub(super) fn used_memory(&self) -> u64 {
        self.plan().memory_in_use()
    }
}

/// Runs `work`, which waits for the disk, where waiting is allowed.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::Internal(format!("a task failed: {error}"))))
}
