//! What the planner knows of one host: how fast it answers, how many requests it bears, and what it is asked for now.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Class, End};
use crate::fetch::limits::{
    BACKGROUND_ROUND_TRIPS, FIRST_REQUESTS, HEDGE_FACTOR, HEDGE_SAMPLES, HEDGE_SHARE, MAX_BACKOFF,
    MAX_REQUEST_LEN, MAX_WINDOW, MEASURE_TIME, MIN_BACKOFF, MIN_HEDGE, MIN_REQUEST_LEN, MIN_REQUESTS,
    PULL_PATIENCE, REQUEST_ROUND_TRIPS, RESERVED_SHARE, USUAL_BANDWIDTH, USUAL_ROUND_TRIP,
};

/// Moments at which first bytes came that are remembered.
const SAMPLES: usize = 64;

/// By how many percent of the best throughput seen it must grow to show that more requests bring more.
const GROWTH: u64 = 105;

/// A throughput of so few percent of the best seen shows that there are too many requests, or less to be had now.
const LOSS: u64 = 80;

/// Of the best throughput seen so many percent are left with each measurement: what a network gave once it may not give for
/// ever.
const FADES: u64 = 98;

/// A new measurement has a fourth of a running mean.
const WEIGHT: u64 = 4;

/// Bytes a second.
fn speed(len: u64, time: Duration) -> u64 {
    let micros = time.as_micros().max(1);
    u64::try_from(u128::from(len) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

/// Bytes that come in `time` at `speed`.
fn bytes_in(speed: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(speed) * time.as_micros() / 1_000_000).unwrap_or(u64::MAX)
}

/// A host.
#[derive(Debug)]
pub(super) struct Host {
    /// Layers of it.
    pub layers: usize,
    /// Bytes of memory that its layers have.
    pub memory: u64,
    /// Bytes received since `measured`.
    pub received: u64,
    /// Requests sent a second time.
    pub hedges: u64,
    /// When somebody last waited for it.
    pub last_demand: Option<Duration>,
    /// When a layer of it was last mounted, until somebody reads one.
    pub unread_since: Option<Duration>,
    /// Layers of it that are being filled in full.
    pub fills: usize,
    requests: u64,
    running: usize,
    /// Of them, those that somebody waits for.
    demand: usize,
    /// Of those, the ones whose bytes are coming.
    demand_coming: usize,
    /// How many there may be.
    limit: usize,
    /// Since when `received` counts.
    measured: Duration,
    /// Whether the limit was reached since then.
    was_full: bool,
    /// Best throughput seen, in bytes a second; it fades.
    best: u64,
    /// What one connection brings, in bytes a second.
    connection: Option<u64>,
    /// Times to the first byte, in order of arrival.
    first_bytes: VecDeque<Duration>,
    /// Failures in a row.
    failures: u32,
    /// Before this moment nothing is asked for that nobody waits for.
    low_from: Duration,
    /// Before this moment nothing is asked for.
    all_from: Duration,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            layers: 0,
            memory: 0,
            received: 0,
            hedges: 0,
            last_demand: None,
            unread_since: None,
            fills: 0,
            requests: 0,
            running: 0,
            demand: 0,
            demand_coming: 0,
            limit: FIRST_REQUESTS,
            measured: Duration::ZERO,
            was_full: false,
            best: 0,
            connection: None,
            first_bytes: VecDeque::new(),
            failures: 0,
            low_from: Duration::ZERO,
            all_from: Duration::ZERO,
        }
    }
}

impl Host {
    /// Whether it need not be remembered.
    pub(super) fn is_idle(&self) -> bool {
        self.layers == 0 && self.memory == 0 && self.running == 0 && self.fills == 0
    }

    /// Until when it is not to be asked for something of this class; `None` when it may be asked.
    pub(super) fn rests_until(&self, class: Class, now: Duration) -> Option<Duration> {
        let until = if class == Class::Demand { self.all_from } else { self.low_from.max(self.all_from) };
        (now < until).then_some(until)
    }

    /// Whether one more request of this class may be sent, where a host may have `most` at all.
    pub(super) fn has_turn(&self, class: Class, most: usize) -> bool {
        match class {
            // Whatever the network bears, who waits isn't made to wait for others' bytes.
            Class::Demand => self.running < most,
            // Some turns are left to demand, which may come at any time.
            _ => self.running - self.demand < self.limit.min(most - most / RESERVED_SHARE).max(1),
        }
    }

    /// From when on the background may ask for more, where it is to keep away from readers for `quiet`, and for some round trips
    /// in any case; `None` while it may not.
    pub(super) fn background_from(&self, quiet: Duration) -> Option<Duration> {
        if self.fills > 0 || self.demand > 0 {
            return None;
        }
        let quiet = quiet.max(self.round_trip() * BACKGROUND_ROUND_TRIPS);
        let quiet_from = self.last_demand.map_or(Duration::ZERO, |at| at + quiet);
        Some(self.unread_since.map_or(quiet_from, |at| quiet_from.max(at + PULL_PATIENCE)))
    }

    /// Whether bytes are coming that somebody waits for.
    pub(super) fn demand_is_coming(&self) -> bool {
        self.demand_coming > 0
    }

    pub(super) fn sent(&mut self, class: Class, now: Duration) {
        if self.running == 0 {
            // Nothing was asked for: that nothing came says nothing.
            (self.measured, self.received, self.was_full) = (now, 0, false);
        }
        self.requests += 1;
        self.running += 1;
        if class == Class::Demand {
            self.demand += 1;
            self.last_demand = Some(now);
        }
        self.was_full |= self.running - self.demand >= self.limit;
    }

    /// A request has become more or less urgent.
    pub(super) fn changed(&mut self, from: Class, to: Class, receiving: bool) {
        let (was, is) = (from == Class::Demand, to == Class::Demand);
        self.demand += usize::from(is);
        self.demand -= usize::from(was);
        if receiving {
            self.demand_coming += usize::from(is);
            self.demand_coming -= usize::from(was);
        }
    }

    pub(super) fn first_byte(&mut self, class: Class, after: Duration) {
        if class == Class::Demand {
            self.demand_coming += 1;
        }
        if self.first_bytes.len() >= SAMPLES {
            self.first_bytes.pop_front();
        }
        self.first_bytes.push_back(after);
    }

    #[expect(clippy::too_many_arguments, reason = "all that is known of a request that has ended")]
    pub(super) fn ended(
        &mut self,
        class: Class,
        receiving: bool,
        end: End,
        len: u64,
        body: Duration,
        starved: bool,
        now: Duration,
    ) {
        if class == Class::Demand {
            self.demand -= 1;
            self.demand_coming -= usize::from(receiving);
            self.last_demand = Some(now);
        }
        self.running -= 1;
        match end {
            End::Done => {
                (self.failures, self.low_from) = (0, Duration::ZERO);
                if len >= MIN_REQUEST_LEN && body > Duration::ZERO {
                    let speed = speed(len, body);
                    let have = self.connection.unwrap_or(speed);
                    self.connection = Some(have - have / WEIGHT + speed / WEIGHT);
                }
            }
            End::Stopped => {}
            End::Failed | End::Busy => {
                let wait = MIN_BACKOFF.saturating_mul(1 << self.failures.min(16)).min(MAX_BACKOFF);
                self.failures += 1;
                self.low_from = self.low_from.max(now + wait);
                if end == End::Busy {
                    // The host as a whole asks for patience.
                    self.all_from = self.all_from.max(now + wait);
                    self.limit = (self.limit / 2).max(MIN_REQUESTS);
                    self.best = 0;
                }
            }
        }
        self.measure(starved, now);
    }

    /// Looks whether more requests have brought more, and allows more or fewer.
    fn measure(&mut self, starved: bool, now: Duration) {
        let time = now.saturating_sub(self.measured);
        if time < MEASURE_TIME {
            return;
        }
        let speed = speed(self.received, time);
        if self.was_full && starved {
            if speed > self.best / 100 * GROWTH {
                self.limit += (self.limit / 4).max(1);
            } else if speed < self.best / 100 * LOSS && self.limit > MIN_REQUESTS {
                self.limit -= 1;
            }
        }
        self.best = (self.best / 100 * FADES).max(speed);
        (self.measured, self.received, self.was_full) = (now, 0, false);
    }

    /// Usual time from a request to its first byte.
    fn round_trip(&self) -> Duration {
        let mut sorted: Vec<Duration> = self.first_bytes.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or(USUAL_ROUND_TRIP)
    }

    fn connection_speed(&self) -> u64 {
        self.connection.unwrap_or(USUAL_BANDWIDTH)
    }

    /// Bytes to ask for with one request: so many that the round trip is a small part of its time, and no more, so that what
    /// there is to fetch is spread over the connections there are.
    pub(super) fn request_len(&self) -> u64 {
        bytes_in(self.connection_speed(), self.round_trip() * REQUEST_ROUND_TRIPS)
            .clamp(MIN_REQUEST_LEN, MAX_REQUEST_LEN)
    }

    /// Bytes that come in the time of a round trip: asking for so many too many costs no more than a request of its own.
    pub(super) fn bridge_len(&self) -> u64 {
        bytes_in(self.connection_speed(), self.round_trip()).min(MAX_REQUEST_LEN)
    }

    /// By how many spans of `mean_len` bytes a reader is read ahead at most: by what comes in two round trips.
    pub(super) fn window(&self, mean_len: u64) -> u32 {
        let speed = self.best.max(self.connection_speed());
        let len = bytes_in(speed, self.round_trip() * 2);
        u32::try_from(len.div_ceil(mean_len)).unwrap_or(u32::MAX).clamp(2, MAX_WINDOW)
    }

    /// How long a first byte is waited for before the request is sent once more.
    pub(super) fn hedge_after(&self) -> Option<Duration> {
        if self.first_bytes.len() < HEDGE_SAMPLES || (self.hedges + 1) * HEDGE_SHARE > self.requests {
            return None;
        }
        let mut sorted: Vec<Duration> = self.first_bytes.iter().copied().collect();
        sorted.sort_unstable();
        let late = sorted[(sorted.len() * 95).div_ceil(100).min(sorted.len()) - 1];
        Some((late * HEDGE_FACTOR / 2).max(MIN_HEDGE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Lets requests run for `steps` of 100 ms against a network that gives `total` bytes a second, and `each` at most on
    /// one connection.
    fn settle(host: &mut Host, total: u64, each: u64, steps: u64) {
        let mut now = ms(0);
        for _ in 0..steps {
            let mut running = 0;
            while host.has_turn(Class::Background, 64) {
                host.sent(Class::Background, now);
                host.first_byte(Class::Background, ms(20));
                running += 1;
            }
            now += MEASURE_TIME;
            let len = bytes_in((each * running).min(total), MEASURE_TIME);
            host.received += len;
            for _ in 0..running {
                host.ended(Class::Background, true, End::Done, len / running, MEASURE_TIME, true, now);
            }
        }
    }

    #[test]
    fn connections_are_added_while_they_bring_more() {
        let mut one_is_enough = Host::default();
        settle(&mut one_is_enough, 125_000_000, 1_000_000_000, 60);
        assert!(one_is_enough.limit <= FIRST_REQUESTS + 2, "{}", one_is_enough.limit);
        let mut many = Host::default();
        settle(&mut many, 1_000_000_000, 90_000_000, 200);
        assert!((10..=20).contains(&many.limit), "1 GB/s at 90 MB/s each: {}", many.limit);
    }

    #[test]
    fn a_host_that_asks_for_patience_gets_it() {
        let mut host = Host { limit: 32, ..Host::default() };
        host.sent(Class::Demand, ms(0));
        host.ended(Class::Demand, false, End::Busy, 0, ms(0), true, ms(10));
        assert_eq!(host.limit, 16);
        assert_eq!(host.rests_until(Class::Demand, ms(10)), Some(ms(10) + MIN_BACKOFF));
        assert_eq!(host.rests_until(Class::Demand, ms(10) + MIN_BACKOFF), None);
        host.sent(Class::Demand, ms(500));
        host.ended(Class::Demand, false, End::Failed, 0, ms(0), true, ms(600));
        assert_eq!(host.rests_until(Class::Demand, ms(600)), None, "whoever waits asks as often as he likes");
        assert_eq!(host.rests_until(Class::Background, ms(600)), Some(ms(600) + MIN_BACKOFF * 2));
    }

    #[test]
    fn requests_are_as_long_as_the_way_is() {
        let mut host = Host::default();
        for _ in 0..20 {
            host.sent(Class::Demand, ms(0));
            host.first_byte(Class::Demand, ms(10));
            host.ended(Class::Demand, true, End::Done, 5 * MIB, ms(40), false, ms(50));
        }
        // 125 MiB/s and 10 ms.
        assert!((4 * MIB..7 * MIB).contains(&host.request_len()), "{}", host.request_len());
        assert!((MIB..2 * MIB).contains(&host.bridge_len()), "{}", host.bridge_len());
        assert_eq!(host.window(MIB), 3);
    }

    #[test]
    fn stragglers_are_few() {
        let mut host = Host::default();
        assert_eq!(host.hedge_after(), None, "nothing is known yet");
        for n in 0..100 {
            host.sent(Class::Demand, ms(0));
            host.first_byte(Class::Demand, if n % 50 == 7 { ms(175) } else { ms(30) });
            host.ended(Class::Demand, true, End::Done, MIB, ms(10), false, ms(50));
        }
        let after = host.hedge_after().expect("there are samples");
        assert!(after > ms(30) && after < ms(175), "{after:?}");
        host.hedges = 100 / HEDGE_SHARE;
        assert_eq!(host.hedge_after(), None, "it is done too often");
    }
}
