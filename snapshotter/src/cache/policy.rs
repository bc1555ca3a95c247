//! Decides what goes when layers take too much room. State in, decisions out: no file is looked at here.

use std::collections::BTreeMap;

/// How far below the quota is gone once it is passed: a thirty-second, so that one look makes room for more than a span.
const QUOTA_SLACK: u64 = 32;

/// How far below the quota there must be to fetch again what nobody has asked for: an eighth. Nearer, what comes so would soon
/// drive out what somebody has read.
const ROOMY_SLACK: u64 = 8;

/// The part of the file system that must be free for what nobody has asked for to be fetched again: a fifth. At 85 % the kubelet
/// begins to delete images, which it would do for bytes that nobody may ever read.
const ROOMY_SHARE: u64 = 5;

/// The part below which that is given up, a sixth: the two lie apart, so that it isn't begun and given up by turns.
const TIGHT_SHARE: u64 = 6;

/// Least room that is made when something could not be written, in bytes: 16 of the usual spans, so that not each write meets
/// the end of the disk again.
const MIN_ROOM: u64 = 64 << 20;

/// The part of a small file system that this is at most.
const MIN_ROOM_SHARE: u64 = 64;

/// How matters stand. All in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Situation {
    /// What layers take, all together.
    pub used: u64,
    /// What they may take.
    pub quota: u64,
    /// Length of the file system.
    pub len: u64,
    /// What of it can still be written.
    pub available: u64,
    /// How full it may be before layers go that nothing refers to.
    pub mark: u64,
    /// What could not be written since the last time.
    pub short: u64,
}

impl Situation {
    /// How full the file system is, as the kubelet counts it: what only root may write counts as full.
    pub(crate) fn filled(&self) -> u64 {
        self.len.saturating_sub(self.available)
    }

    /// Whether the file system is so full that layers go that nothing refers to.
    pub(crate) fn is_above_mark(&self) -> bool {
        self.filled() > self.mark
    }

    fn min_room(&self) -> u64 {
        MIN_ROOM.min(self.len / MIN_ROOM_SHARE)
    }

    /// What has to go whoever has it.
    fn excess(&self) -> u64 {
        let low = self.quota - self.quota / QUOTA_SLACK;
        let over = if self.used > self.quota { self.used - low } else { 0 };
        over.max(self.missing_room())
    }

    /// What has to be freed so that what could not be written can be; nothing if there is room by now.
    fn missing_room(&self) -> u64 {
        let needed = if self.short > 0 { self.short.max(self.min_room()) } else { 0 };
        needed.saturating_sub(self.available)
    }

    /// Whether there is room by now for what could not be written.
    pub(crate) fn has_room(&self) -> bool {
        self.missing_room() == 0
    }
}

/// Who keeps a layer where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Nobody: no snapshot refers to it.
    Unused,
    /// A snapshot refers to it, and it isn't mounted.
    Unmounted,
    /// It is mounted behind the device, which asks for what is missing.
    Mounted,
    /// It is being filled or about to be mounted, or it is mounted without the device, so that nobody would notice that
    /// something is missing.
    Fixed,
}

/// A layer as it lies on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holding {
    /// What it takes, in bytes.
    pub bytes: u64,
    /// What of this its spans take, each of which may go; 0 where it is one piece.
    pub spans: u64,
    /// When it was used last, in any unit.
    pub used: u64,
    /// Who keeps it.
    pub hold: Hold,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// This layer goes, with all its files.
    Drop(usize),
    /// All spans of this layer go.
    Empty(usize),
    /// So many bytes of spans of mounted layers go, those used longest ago: see [`choose`].
    Thin(u64),
}

/// What is to go, in order.
pub(crate) fn plan(situation: &Situation, holdings: &[Holding]) -> Vec<Step> {
    let mut steps = Vec::new();
    let excess = situation.excess();
    let above_mark = situation.filled().saturating_sub(situation.mark);
    let mut freed = 0;
    for index in oldest(holdings, Hold::Unused) {
        if freed >= excess.max(above_mark) {
            break;
        }
        freed += holdings[index].bytes;
        steps.push(Step::Drop(index));
    }
    for index in oldest(holdings, Hold::Unmounted) {
        if freed >= excess {
            return steps;
        }
        let holding = holdings[index];
        // Without checkpoints there is nothing that a part of it would be good for.
        let (step, bytes) = if holding.spans > 0 {
            (Step::Empty(index), holding.spans)
        } else {
            (Step::Drop(index), holding.bytes)
        };
        freed += bytes;
        steps.push(step);
    }
    let left = excess.saturating_sub(freed);
    let there = holdings.iter().filter(|holding| holding.hold == Hold::Mounted);
    let bytes = left.min(there.fold(0, |sum, holding| sum + holding.spans));
    if bytes > 0 {
        steps.push(Step::Thin(bytes));
    }
    steps
}

/// Those that are held so, the one used longest ago first, and of several the largest.
fn oldest(holdings: &[Holding], hold: Hold) -> Vec<usize> {
    let mut found: Vec<usize> = (0..holdings.len())
        .filter(|index| holdings[*index].hold == hold && holdings[*index].bytes > 0)
        .collect();
    found.sort_by_key(|index| (holdings[*index].used, std::cmp::Reverse(holdings[*index].bytes), *index));
    found
}

/// Whether what nobody has asked for is better not fetched, as it `was` until now; `steps` are what had to go.
pub(crate) fn is_tight(situation: &Situation, steps: &[Step], was: bool) -> bool {
    let roomy = situation.used <= situation.quota - situation.quota / ROOMY_SLACK
        && situation.available >= situation.len / ROOMY_SHARE;
    let tight = situation.short > 0
        || situation.available < situation.len / TIGHT_SHARE
        // What somebody has read would go for it.
        || steps.iter().any(|step| matches!(step, Step::Thin(_)));
    tight || (was && !roomy)
}

/// A span of a mounted layer that could go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Which layer, as the caller counts them.
    pub layer: usize,
    /// Which span of it.
    pub span: u32,
    /// Its length in the stream, in bytes.
    pub len: u64,
    /// How many ages ago it was used last; `u16::MAX` for never.
    pub unused_for: u16,
}

/// Spans of `candidates` with `bytes` together, those used longest ago: by layer, in order.
pub(crate) fn choose(mut candidates: Vec<Candidate>, bytes: u64) -> BTreeMap<usize, Vec<u32>> {
    // Neighbours together: they give back the blocks that they share, too.
    candidates.sort_unstable_by_key(|one| (std::cmp::Reverse(one.unused_for), one.layer, one.span));
    let mut chosen: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    let mut freed = 0;
    for one in candidates {
        if freed >= bytes {
            break;
        }
        freed += one.len;
        chosen.entry(one.layer).or_default().push(one.span);
    }
    chosen.values_mut().for_each(|spans| spans.sort_unstable());
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;

    fn calm() -> Situation {
        Situation {
            used: 10 * GIB,
            quota: 60 * GIB,
            len: 100 * GIB,
            available: 50 * GIB,
            mark: 80 * GIB,
            short: 0,
        }
    }

    fn holding(hold: Hold, used: u64, bytes: u64, spans: u64) -> Holding {
        Holding { bytes, spans, used, hold }
    }

    /// One of each, the fixed one used longest ago.
    fn all() -> Vec<Holding> {
        vec![
            holding(Hold::Fixed, 0, 9 * GIB, 9 * GIB),
            holding(Hold::Mounted, 1, 4 * GIB, 3 * GIB),
            holding(Hold::Unmounted, 3, 2 * GIB, GIB),
            holding(Hold::Unmounted, 2, 2 * GIB, 0),
            holding(Hold::Unused, 6, GIB, GIB),
            holding(Hold::Unused, 5, GIB, 0),
            holding(Hold::Unused, 5, 2 * GIB, 0),
        ]
    }

    #[test]
    fn who_goes_first_and_who_never() {
        let (all, calm) = (all(), calm());
        let over = |by: u64| Situation { quota: calm.used - by, ..calm };
        // A thirty-second more than what is over: less than half a GiB here.
        for (situation, want) in [
            (calm, vec![]),
            (over(0), vec![]),
            (over(1), vec![Step::Drop(6)]),
            (over(2 * GIB), vec![Step::Drop(6), Step::Drop(5)]),
            (over(3 * GIB), vec![Step::Drop(6), Step::Drop(5), Step::Drop(4)]),
            (over(6 * GIB), vec![Step::Drop(6), Step::Drop(5), Step::Drop(4), Step::Drop(3), Step::Empty(2)]),
        ] {
            assert_eq!(plan(&situation, &all), want, "{situation:?}");
        }
        let most = plan(&Situation { quota: 0, ..calm }, &all);
        assert_eq!(most.last(), Some(&Step::Thin(3 * GIB)), "all that there is");
        assert!(!most.contains(&Step::Drop(0)) && !most.contains(&Step::Empty(0)));
    }

    #[test]
    fn above_the_mark_only_what_nothing_refers_to_goes() {
        let above = |by: u64| Situation { available: 20 * GIB - by, ..calm() };
        for (by, want) in [
            (0, vec![]),
            (1, vec![Step::Drop(6)]),
            (2 * GIB + 1, vec![Step::Drop(6), Step::Drop(5)]),
            (15 * GIB, vec![Step::Drop(6), Step::Drop(5), Step::Drop(4)]),
        ] {
            assert_eq!(plan(&above(by), &all()), want, "{by}");
        }
    }

    #[test]
    fn what_could_not_be_written_makes_room_whatever_the_quota_says() {
        let mounted = [holding(Hold::Mounted, 1, 4 * GIB, 3 * GIB)];
        let short = |short| Situation { short, available: 0, mark: 100 * GIB, ..calm() };
        assert_eq!(plan(&short(1), &mounted), [Step::Thin(MIN_ROOM)]);
        assert_eq!(plan(&short(GIB), &mounted), [Step::Thin(GIB)]);
        assert_eq!(plan(&short(GIB), &all()), [Step::Drop(6)]);
        let small = Situation { len: 64 << 20, ..short(1) };
        assert_eq!(plan(&small, &mounted), [Step::Thin(1 << 20)]);
        assert_eq!(plan(&short(GIB), &[holding(Hold::Fixed, 0, GIB, GIB)]), []);
        // Somebody has made room already.
        assert_eq!(plan(&Situation { available: GIB, ..short(GIB) }, &mounted), []);
        assert_eq!(plan(&Situation { available: GIB - 5, ..short(GIB) }, &mounted), [Step::Thin(5)]);
    }

    #[test]
    fn what_nobody_asks_for_is_fetched_when_nothing_is_near_its_end() {
        let calm = calm();
        for (situation, from_roomy, from_tight) in [
            (calm, false, false),
            (Situation { used: 52 * GIB, ..calm }, false, false),
            (Situation { used: 53 * GIB, ..calm }, false, true),
            (Situation { short: 1, ..calm }, true, true),
            (Situation { available: 20 * GIB, ..calm }, false, false),
            (Situation { available: 19 * GIB, ..calm }, false, true),
            (Situation { available: 16 * GIB, ..calm }, true, true),
            // That nothing unused is kept is no reason.
            (Situation { mark: 0, ..calm }, false, false),
        ] {
            let tight = |was| is_tight(&situation, &[Step::Drop(0), Step::Empty(1)], was);
            assert_eq!((tight(false), tight(true)), (from_roomy, from_tight), "{situation:?}");
        }
        assert!(is_tight(&calm, &[Step::Thin(1)], false));
        // What is made room to isn't roomy: else it would be filled and emptied by turns.
        let full = Situation { used: calm.quota + 1, ..calm };
        assert!(is_tight(&Situation { used: full.used - full.excess(), ..full }, &[], true));
    }

    #[test]
    fn spans_go_by_age_and_neighbours_together() {
        let one = |layer, span, unused_for| Candidate { layer, span, len: 10, unused_for };
        let all =
            vec![one(0, 0, 3), one(0, 1, 9), one(1, 7, u16::MAX), one(1, 6, 9), one(0, 2, 9), one(1, 5, 0)];
        for (bytes, want) in [
            (0, vec![]),
            (1, vec![(1, vec![7])]),
            (30, vec![(0, vec![1, 2]), (1, vec![7])]),
            (31, vec![(0, vec![1, 2]), (1, vec![6, 7])]),
            (1000, vec![(0, vec![0, 1, 2]), (1, vec![5, 6, 7])]),
        ] {
            assert_eq!(choose(all.clone(), bytes).into_iter().collect::<Vec<_>>(), want, "{bytes}");
        }
    }

    fn any_holding() -> impl Strategy<Value = Holding> {
        let hold =
            prop_oneof![Just(Hold::Unused), Just(Hold::Unmounted), Just(Hold::Mounted), Just(Hold::Fixed)];
        (0u64..1000, 0u64..1000, 0u64..5, hold).prop_map(|(own, spans, used, hold)| Holding {
            bytes: own + spans,
            spans,
            used,
            hold,
        })
    }

    proptest! {
        /// Whatever there is: enough goes if there is enough, nothing twice, nothing that must stay, and nothing in vain.
        #[test]
        fn enough_goes_and_nothing_in_vain(
            holdings in prop::collection::vec(any_holding(), 0..12),
            quota in 0u64..10_000,
            available in 0u64..10_000,
            mark in 0u64..10_000,
            short in prop_oneof![Just(0), 0u64..3000],
        ) {
            let used = holdings.iter().map(|holding| holding.bytes).sum();
            let situation = Situation { used, quota, len: 10_000, available, mark, short };
            let steps = plan(&situation, &holdings);
            let mut freed = 0;
            let mut gone = std::collections::BTreeSet::new();
            let (excess, above) = (situation.excess(), situation.filled().saturating_sub(mark));
            for step in &steps {
                let unused = matches!(step, Step::Drop(index) if holdings[*index].hold == Hold::Unused);
                prop_assert!(freed < if unused { excess.max(above) } else { excess }, "{:?} in vain", step);
                match step {
                    Step::Drop(index) => {
                        prop_assert!(gone.insert(*index));
                        prop_assert!(unused || holdings[*index].hold == Hold::Unmounted && holdings[*index].spans == 0);
                        freed += holdings[*index].bytes;
                    }
                    Step::Empty(index) => {
                        prop_assert!(gone.insert(*index));
                        prop_assert_eq!(holdings[*index].hold, Hold::Unmounted);
                        freed += holdings[*index].spans;
                    }
                    Step::Thin(bytes) => freed += bytes,
                }
            }
            let could: u64 = holdings.iter().map(|holding| match holding.hold {
                Hold::Unused => holding.bytes,
                Hold::Unmounted if holding.spans == 0 => holding.bytes,
                Hold::Unmounted | Hold::Mounted => holding.spans,
                Hold::Fixed => 0,
            }).sum();
            prop_assert!(freed >= excess.min(could), "{} of {} that could", freed, could);
        }
    }
}
