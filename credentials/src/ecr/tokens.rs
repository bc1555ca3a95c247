//! One token for each registry: kept while it is good, got once however many ask, renewed before it ends.
//!
//! Where tokens come from is the [`Issuer`]'s business; what time it is, the clock's. Of those who need a token that isn't
//! there, one gets it and the others wait for what comes of that, good or bad (single flight). A token that is in use is
//! renewed by a task of its own at about two thirds of its life, so that nobody waits for it; one that nobody has asked for
//! since it came is left to end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use spandrel_registry::{Clock, Credential};
use tokio::task::AbortHandle;

use super::EcrHost;
use crate::Observer;
use crate::limits::{
    FAILURE_REST, MAX_RENEWAL_WAIT, MAX_TOKENS, MIN_RENEWAL_WAIT, REFUSAL_EVERY, REFUSALS_AT_ONCE,
    RENEWAL_JITTER, RENEWAL_SHARE, TOKEN_LIFE, TOKEN_MARGIN,
};

/// A token as it came.
#[derive(Debug, Clone)]
pub(crate) struct Issued {
    /// What a registry is shown.
    pub(crate) credential: Credential,
    /// When it ends, where that was said.
    pub(crate) ends: Option<SystemTime>,
    /// Where the AWS credentials came from that it was asked for with.
    pub(crate) by: &'static str,
}

/// Who gives tokens.
#[async_trait]
pub(crate) trait Issuer: Send + Sync + std::fmt::Debug {
    /// A new token for a registry, or a sentence (without secrets) that says why there is none.
    async fn issue(&self, registry: &EcrHost) -> Result<Issued, String>;
}

/// Why a token is asked for, as the metric's label has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// There is none yet.
    First,
    /// The one at hand has ended.
    Ended,
    /// A registry refused the one at hand.
    Refused,
    /// The one at hand will end.
    Renewal,
}

impl Cause {
    fn label(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Ended => "ended",
            Self::Refused => "refused",
            Self::Renewal => "renewal",
        }
    }
}

/// What all slots share.
#[derive(Debug)]
struct Shared {
    issuer: Arc<dyn Issuer>,
    clock: Arc<dyn Clock>,
    observer: Option<Arc<dyn Observer>>,
}

/// The tokens of all registries.
#[derive(Debug)]
pub(crate) struct Tokens {
    shared: Arc<Shared>,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
}

impl Tokens {
    pub(crate) fn new(
        issuer: Arc<dyn Issuer>,
        clock: Arc<dyn Clock>,
        observer: Option<Arc<dyn Observer>>,
    ) -> Self {
        Self { shared: Arc::new(Shared { issuer, clock, observer }), slots: Mutex::default() }
    }

    /// A token for the registry at `host`; not `refused`, if another can be had.
    pub(crate) async fn get(
        &self,
        host: &str,
        registry: &EcrHost,
        refused: Option<&Credential>,
    ) -> Result<Issued, String> {
        let slot = {
            let mut slots = lock(&self.slots);
            if slots.len() >= MAX_TOKENS && !slots.contains_key(host) {
                slots.clear(); // they are got again when needed
            }
            let new = || Arc::new(Slot::new(Arc::clone(&self.shared), registry.clone()));
            Arc::clone(slots.entry(host.to_owned()).or_insert_with(new))
        };
        slot.get(refused).await
    }
}

/// A token at hand.
#[derive(Debug, Clone)]
struct Held {
    issued: Issued,
    /// When it ends, on [`Clock::elapsed`], which stands still while a machine sleeps…
    ends: Duration,
    /// …and by the time of day, which somebody may set.
    ends_by_day: SystemTime,
    /// When to renew it, on [`Clock::elapsed`].
    renewal: Duration,
    /// Whether anybody has asked since it came.
    used: bool,
}

#[derive(Debug, Default)]
struct State {
    held: Option<Held>,
    /// How many times a token was asked for, and how many times one came.
    calls: (u64, u64),
    /// What the last failure said, and until when it is the answer, on [`Clock::elapsed`].
    failed: Option<(Duration, String)>,
    /// From when on a refusal costs nothing any more, on [`Clock::elapsed`].
    refusals: Duration,
    renewal: Option<AbortHandle>,
}

/// One registry's token.
#[derive(Debug)]
struct Slot {
    shared: Arc<Shared>,
    registry: EcrHost,
    state: Mutex<State>,
    /// Held by whoever gets the next token.
    turn: tokio::sync::Mutex<()>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(renewal) = &lock(&self.state).renewal {
            renewal.abort();
        }
    }
}

/// A lock is poisoned when another thread panicked between two assignments: what it guards is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    fn new(shared: Arc<Shared>, registry: EcrHost) -> Self {
        Self { shared, registry, state: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    async fn get(self: &Arc<Self>, refused: Option<&Credential>) -> Result<Issued, String> {
        let seen = {
            let mut state = lock(&self.state);
            if let Some(issued) = state.good(&*self.shared.clock, refused) {
                return Ok(issued);
            }
            state.calls
        };
        let _turn = self.turn.lock().await;
        let cause = {
            let (mut state, clock) = (lock(&self.state), &*self.shared.clock);
            if let Some(issued) = state.good(clock, refused) {
                return Ok(issued);
            }
            if let Some((until, message)) = &state.failed
                && (*until > clock.elapsed() || state.calls.0 != seen.0)
            {
                return Err(message.clone());
            }
            if let (true, Some(held)) = (state.calls.1 != seen.1, &mut state.held) {
                // It came while we waited, and had no life left: still newer than what we could have had.
                if refused != Some(&held.issued.credential) {
                    held.used = true;
                    return Ok(held.issued.clone());
                }
            }
            match &state.held {
                None => Cause::First,
                Some(held) if !held.is_good(clock) => Cause::Ended,
                Some(held) => {
                    let issued = held.issued.clone();
                    if !state.may_replace_refused(clock.elapsed()) {
                        return Ok(issued);
                    }
                    Cause::Refused
                }
            }
        };
        let issued = self.call(cause).await?;
        self.keep_renewing();
        Ok(issued)
    }

    /// Asks for a token; whoever calls has the turn.
    async fn call(&self, cause: Cause) -> Result<Issued, String> {
        let result = self.shared.issuer.issue(&self.registry).await;
        if let Some(observer) = &self.shared.observer {
            observer.token(cause.label(), result.is_ok());
        }
        let clock = &*self.shared.clock;
        let mut state = lock(&self.state);
        state.calls.0 += 1;
        match &result {
            Ok(issued) => {
                state.calls.1 += 1;
                tracing::debug!(registry = ?self.registry, cause = cause.label(), by = issued.by, "a new ECR token");
                state.failed = None;
                state.held = Some(Held::new(issued.clone(), clock, cause != Cause::Renewal));
            }
            Err(message) if cause == Cause::Renewal => {
                tracing::warn!(registry = ?self.registry, message, "the ECR token could not be renewed yet");
            }
            Err(message) => state.failed = Some((clock.elapsed() + FAILURE_REST, message.clone())),
        }
        result
    }

    /// Starts the task that renews the token at hand, in place of the one for its predecessor.
    fn keep_renewing(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        let now = self.shared.clock.elapsed();
        let wait = state.held.as_ref().and_then(|held| held.renewal.checked_sub(now)).unwrap_or_default();
        // One that ended as it came is got when somebody asks, not again and again.
        let task = (!wait.is_zero()).then(|| {
            tokio::spawn(renew(Arc::downgrade(self), Arc::clone(&self.shared.clock), wait)).abort_handle()
        });
        if let Some(former) = std::mem::replace(&mut state.renewal, task) {
            former.abort();
        }
    }

    /// Renews the token, if it is in use; returns how long to wait for the next time. `failures` counts those in a row.
    async fn renew(&self, failures: &mut u32) -> Option<Duration> {
        let _turn = self.turn.lock().await;
        {
            let (state, clock) = (lock(&self.state), &*self.shared.clock);
            let held = state.held.as_ref().filter(|held| held.used && held.is_good(clock))?;
            // Somebody has got a newer one while we came here.
            if let Some(wait) = held.renewal.checked_sub(clock.elapsed()).filter(|wait| !wait.is_zero()) {
                return Some(wait);
            }
        }
        if self.call(Cause::Renewal).await.is_err() {
            let wait = MIN_RENEWAL_WAIT.saturating_mul(2_u32.saturating_pow(*failures)).min(MAX_RENEWAL_WAIT);
            *failures = failures.saturating_add(1);
            return Some(wait.mul_f64(0.5 + fastrand::f64() / 2.0));
        }
        *failures = 0;
        let renewal = lock(&self.state).held.as_ref()?.renewal;
        renewal.checked_sub(self.shared.clock.elapsed()).filter(|wait| !wait.is_zero())
    }
}

/// Renews a slot's token again and again, until it isn't used any more or the slot is gone.
async fn renew(slot: Weak<Slot>, clock: Arc<dyn Clock>, mut wait: Duration) {
    let mut failures = 0;
    loop {
        clock.sleep(wait).await;
        let Some(slot) = slot.upgrade() else { return };
        let Some(next) = slot.renew(&mut failures).await else { return };
        wait = next;
    }
}

impl Held {
    fn new(issued: Issued, clock: &dyn Clock, used: bool) -> Self {
        let (now, day) = (clock.elapsed(), clock.now());
        let life = match issued.ends {
            Some(ends) => ends.duration_since(day).unwrap_or_default(),
            None => TOKEN_LIFE,
        };
        // Where tokens live very short, a tenth of the life is the margin.
        let margin = TOKEN_MARGIN.min(life / 10);
        let share = RENEWAL_SHARE + RENEWAL_JITTER * (fastrand::f64() * 2.0 - 1.0);
        Self {
            ends: now + (life - margin),
            ends_by_day: day + (life - margin),
            renewal: now + life.mul_f64(share),
            issued,
            used,
        }
    }

    fn is_good(&self, clock: &dyn Clock) -> bool {
        clock.elapsed() < self.ends && clock.now() < self.ends_by_day
    }
}

impl State {
    /// The token at hand, when it is good and not the one that was refused.
    fn good(&mut self, clock: &dyn Clock, refused: Option<&Credential>) -> Option<Issued> {
        let held = self.held.as_mut().filter(|held| held.is_good(clock))?;
        held.used = true;
        (refused != Some(&held.issued.credential)).then(|| held.issued.clone())
    }

    /// Whether a token that should be good, but was refused, may be replaced: a registry that refuses whatever it is shown
    /// (for want of a permission, say) must not make every request one for a token.
    fn may_replace_refused(&mut self, now: Duration) -> bool {
        let from = self.refusals.max(now);
        if from - now > REFUSAL_EVERY * (REFUSALS_AT_ONCE - 1) {
            return false;
        }
        self.refusals = from + REFUSAL_EVERY;
        true
    }
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
