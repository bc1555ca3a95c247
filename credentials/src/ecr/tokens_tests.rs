//! Tests of keeping tokens: an issuer that counts, and a clock that a test moves.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, watch};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

/// A clock that moves when told; who sleeps wakes when it has come far enough.
#[derive(Debug)]
struct ManualClock {
    elapsed: watch::Sender<Duration>,
    /// How far the time of day is ahead of that.
    day: Mutex<Duration>,
    sleepers: watch::Sender<usize>,
}

impl ManualClock {
    fn new() -> Arc<Self> {
        let (elapsed, sleepers) = (watch::Sender::new(Duration::ZERO), watch::Sender::new(0));
        Arc::new(Self { elapsed, day: Mutex::default(), sleepers })
    }

    fn advance(&self, time: Duration) {
        self.elapsed.send_modify(|elapsed| *elapsed += time);
    }

    /// Waits until this many sleep.
    async fn sleepers(&self, count: usize) {
        self.sleepers.subscribe().wait_for(|have| *have == count).await.expect("the clock is here");
    }
}

/// One that sleeps, counted.
struct Sleeper<'a>(&'a watch::Sender<usize>);

impl<'a> Sleeper<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + *lock(&self.day) + self.elapsed()
    }

    fn elapsed(&self) -> Duration {
        *self.elapsed.borrow()
    }

    async fn sleep(&self, wait: Duration) {
        let mut elapsed = self.elapsed.subscribe();
        let until = self.elapsed() + wait;
        let _sleeper = Sleeper::new(&self.sleepers);
        elapsed.wait_for(|now| *now >= until).await.expect("the clock is here");
    }
}

/// Gives numbered tokens of a certain life, when it is let.
#[derive(Debug)]
struct Counting {
    clock: Arc<ManualClock>,
    life: Mutex<Option<Duration>>,
    fails: Mutex<bool>,
    given: AtomicUsize,
    asked: watch::Sender<usize>,
    gate: Semaphore,
}

impl Counting {
    fn new(clock: &Arc<ManualClock>, life: Option<Duration>) -> Arc<Self> {
        Arc::new(Self {
            clock: Arc::clone(clock),
            life: Mutex::new(life),
            fails: Mutex::default(),
            given: AtomicUsize::new(0),
            asked: watch::Sender::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        })
    }

    fn asked(&self) -> usize {
        *self.asked.borrow()
    }

    /// Waits until it was asked this often in all.
    async fn until_asked(&self, count: usize) {
        self.asked.subscribe().wait_for(|have| *have >= count).await.expect("the issuer is here");
    }

    fn fail(&self, fails: bool) {
        *lock(&self.fails) = fails;
    }
}

#[async_trait]
impl Issuer for Counting {
    async fn issue(&self, registry: &EcrHost) -> Result<Issued, String> {
        assert_eq!(registry.region, "eu-west-1");
        self.asked.send_modify(|asked| *asked += 1);
        let _permit = self.gate.acquire().await.expect("open");
        if *lock(&self.fails) {
            return Err("broken".to_owned());
        }
        let number = self.given.fetch_add(1, Ordering::SeqCst) + 1;
        let ends = lock(&self.life).map(|life| self.clock.now() + life);
        Ok(Issued { credential: token(number), ends, by: "instance" })
    }
}

fn token(number: usize) -> Credential {
    Credential::Basic { username: "AWS".into(), password: format!("token-{number}") }
}

/// What was counted, by cause.
#[derive(Debug, Default)]
struct Counted(Mutex<Vec<(&'static str, bool)>>);

impl Observer for Counted {
    fn asked(&self, _: &'static str, _: &'static str) {}

    fn token(&self, cause: &'static str, is_ok: bool) {
        lock(&self.0).push((cause, is_ok));
    }
}

struct Bed {
    clock: Arc<ManualClock>,
    issuer: Arc<Counting>,
    counted: Arc<Counted>,
    tokens: Tokens,
    registry: EcrHost,
}

impl Bed {
    fn new(life: Option<Duration>) -> Self {
        let clock = ManualClock::new();
        let (issuer, counted) = (Counting::new(&clock, life), Arc::new(Counted::default()));
        let tokens =
            Tokens::new(Arc::clone(&issuer) as _, Arc::clone(&clock) as _, Some(Arc::clone(&counted) as _));
        Self { clock, issuer, counted, tokens, registry: EcrHost::parse(HOST).expect("an ECR registry") }
    }

    async fn get(&self, refused: Option<&Credential>) -> Result<Credential, String> {
        Ok(self.tokens.get(HOST, &self.registry, refused).await?.credential)
    }

    fn counted(&self) -> Vec<(&'static str, bool)> {
        lock(&self.counted.0).clone()
    }
}

#[tokio::test]
async fn many_share_one_token_and_one_failure() {
    let bed = Arc::new(Bed::new(Some(12 * HOUR)));
    for (fails, calls) in [(true, 1), (false, 2)] {
        bed.issuer.fail(fails);
        bed.issuer.gate.forget_permits(Semaphore::MAX_PERMITS);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let bed = Arc::clone(&bed);
            tasks.spawn(async move { bed.get(None).await });
        }
        // All have come as far as they can before the first is answered.
        bed.issuer.until_asked(calls).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        bed.issuer.gate.add_permits(1000);
        while let Some(got) = tasks.join_next().await {
            let want = if fails { Err("broken".to_owned()) } else { Ok(token(1)) };
            assert_eq!(got.expect("no panic"), want);
        }
        assert_eq!(bed.issuer.asked(), calls);
        // A failure is the answer for a while.
        assert_eq!(bed.get(None).await.is_ok(), !fails);
        assert_eq!(bed.issuer.asked(), calls);
        bed.clock.advance(FAILURE_REST);
    }
    assert_eq!(bed.counted(), [("first", false), ("first", true)]);
}

#[tokio::test]
async fn a_token_in_use_is_renewed_before_it_ends_and_one_that_is_not_is_left() {
    let bed = Bed::new(Some(12 * HOUR));
    assert_eq!(bed.get(None).await, Ok(token(1)));
    for round in 1..5 {
        bed.clock.sleepers(1).await;
        bed.clock.advance(7 * HOUR); // before 0.6 of its life nothing happens
        assert_eq!(bed.get(None).await, Ok(token(round)));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(bed.issuer.asked(), round);
        bed.clock.advance(2 * HOUR); // after 0.734 of it, it has happened
        bed.issuer.until_asked(round + 1).await;
        bed.clock.sleepers(1).await;
        assert_eq!(bed.get(None).await, Ok(token(round + 1)), "nobody waited");
    }
    // Now nobody asks any more after the next renewal: it is the last.
    bed.clock.advance(9 * HOUR);
    bed.issuer.until_asked(6).await;
    bed.clock.sleepers(1).await;
    bed.clock.advance(9 * HOUR);
    bed.clock.sleepers(0).await;
    assert_eq!(bed.issuer.asked(), 6);
    // It is good for some hours yet; then the next one who asks gets a new one.
    assert_eq!(bed.get(None).await, Ok(token(6)));
    bed.clock.advance(3 * HOUR);
    assert_eq!(bed.get(None).await, Ok(token(7)));
    let renewals = bed.counted().iter().filter(|counted| **counted == ("renewal", true)).count();
    assert_eq!((renewals, bed.counted()[6]), (5, ("ended", true)));
}

#[tokio::test]
async fn a_renewal_that_fails_is_tried_again_while_the_token_is_good() {
    let bed = Bed::new(Some(12 * HOUR));
    assert_eq!(bed.get(None).await, Ok(token(1)));
    bed.issuer.fail(true);
    bed.clock.sleepers(1).await;
    bed.clock.advance(9 * HOUR);
    for tries in 2..6 {
        bed.issuer.until_asked(tries).await;
        bed.clock.sleepers(1).await;
        assert_eq!(bed.get(None).await, Ok(token(1)), "nobody notices");
        bed.clock.advance(MAX_RENEWAL_WAIT);
    }
    bed.issuer.fail(false);
    bed.issuer.until_asked(6).await;
    bed.clock.sleepers(1).await;
    bed.clock.advance(MAX_RENEWAL_WAIT);
    // The sixth may have failed yet: it was under way.
    bed.clock.sleepers(1).await;
    let now = bed.get(None).await.expect("good");
    assert!([token(1), token(2)].contains(&now));
    // Fails until its end, and whoever asks then is told why.
    bed.issuer.fail(true);
    bed.clock.advance(13 * HOUR);
    assert_eq!(bed.get(None).await, Err("broken".to_owned()));
    bed.issuer.fail(false);
    bed.clock.advance(FAILURE_REST);
    assert!(bed.get(None).await.is_ok());
}

#[tokio::test]
async fn the_time_of_day_counts_too() {
    let bed = Bed::new(Some(12 * HOUR));
    assert_eq!(bed.get(None).await, Ok(token(1)));
    // A machine that slept: the day went on, the other clock didn't.
    *lock(&bed.clock.day) += 11 * HOUR;
    assert_eq!(bed.get(None).await, Ok(token(1)));
    *lock(&bed.clock.day) += HOUR;
    assert_eq!(bed.get(None).await, Ok(token(2)));
    // And one whose clock was set back: the other one tells.
    *lock(&bed.clock.day) = Duration::ZERO;
    bed.clock.advance(12 * HOUR);
    assert_eq!(bed.get(None).await, Ok(token(3)));
}

#[tokio::test]
async fn a_refused_token_is_replaced_once_for_all_who_had_it() {
    let bed = Bed::new(Some(12 * HOUR));
    let first = bed.get(None).await.expect("one");
    for _ in 0..10 {
        assert_eq!(bed.get(Some(&first)).await, Ok(token(2)));
    }
    assert_eq!((bed.issuer.asked(), bed.counted()), (2, vec![("first", true), ("refused", true)]));
    // Somebody else's password was refused: that says nothing of ours.
    assert_eq!(bed.get(Some(&token(99))).await, Ok(token(2)));
}

#[tokio::test]
async fn a_registry_that_refuses_everything_does_not_make_a_call_of_each_request() {
    let bed = Bed::new(Some(12 * HOUR));
    let mut held = bed.get(None).await.expect("one");
    for _ in 0..100 {
        held = bed.get(Some(&held)).await.expect("one");
    }
    let at_once = usize::try_from(REFUSALS_AT_ONCE).expect("small");
    assert_eq!(bed.issuer.asked(), 1 + at_once);
    for more in 1..4 {
        bed.clock.advance(REFUSAL_EVERY);
        for _ in 0..100 {
            held = bed.get(Some(&held)).await.expect("one");
        }
        assert_eq!(bed.issuer.asked(), 1 + at_once + more);
    }
}

#[tokio::test]
async fn a_token_that_ended_as_it_came_is_used_once_by_all_who_waited() {
    // As moto gives them.
    let bed = Arc::new(Bed::new(Some(Duration::ZERO)));
    for calls in 1..4 {
        bed.issuer.gate.forget_permits(Semaphore::MAX_PERMITS);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let bed = Arc::clone(&bed);
            tasks.spawn(async move { bed.get(None).await });
        }
        bed.issuer.until_asked(calls).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        bed.issuer.gate.add_permits(1000);
        while let Some(got) = tasks.join_next().await {
            assert_eq!(got.expect("no panic"), Ok(token(calls)));
        }
        assert_eq!(bed.issuer.asked(), calls);
    }
    bed.clock.sleepers(0).await; // nothing is renewed in the background
}

#[tokio::test]
async fn one_that_does_not_say_lives_as_long_as_all_do() {
    let bed = Bed::new(None);
    assert_eq!(bed.get(None).await, Ok(token(1)));
    bed.clock.advance(TOKEN_LIFE - TOKEN_MARGIN - Duration::from_secs(1));
    assert!(bed.get(None).await.is_ok());
    *lock(&bed.issuer.life) = Some(Duration::from_secs(100));
    bed.clock.advance(TOKEN_LIFE);
    let held = bed.get(None).await.expect("one");
    bed.clock.advance(Duration::from_secs(89));
    bed.clock.sleepers(1).await;
    assert_ne!(held, token(1));
}

#[tokio::test]
async fn registries_are_apart_few_and_gone_with_their_tasks() {
    let Bed { clock, issuer, tokens, registry, .. } = Bed::new(Some(12 * HOUR));
    for number in 0..MAX_TOKENS + 10 {
        let got = tokens.get(&format!("{number}"), &registry, None).await.expect("one");
        assert_eq!(got.credential, token(number + 1));
        assert!(lock(&tokens.slots).len() <= MAX_TOKENS);
    }
    assert_eq!(issuer.asked(), MAX_TOKENS + 10);
    clock.sleepers(10).await;
    drop(tokens);
    clock.sleepers(0).await;
}

#[test]
fn no_debug_shows_a_token() {
    let bed = Bed::new(Some(12 * HOUR));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let issued = runtime.block_on(bed.tokens.get(HOST, &bed.registry, None)).expect("one");
    let text = format!("{issued:?} {:?}", bed.tokens);
    assert!(text.contains("instance") && !text.contains("token-1"), "{text}");
}
