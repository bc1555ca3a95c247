//! The planner, played through without a network: order, promotion, sharing, and a model that any sequence of events is
//! compared with.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;
use spandrel_ztoc::{Checkpoint, Compression, Sha256Digest, Ztoc};

use super::*;
use crate::fetch::limits::{BACKGROUND_ROUND_TRIPS, PULL_PATIENCE, USUAL_ROUND_TRIP};

const MIB: u64 = 1 << 20;

/// A layer of `spans` spans of 1 MiB in the blob and 3 MiB of stream each.
fn table(spans: u32) -> Arc<SpanTable> {
    let checkpoints = (0..u64::from(spans)).map(|nth| Checkpoint {
        compressed_offset: 10 + nth * MIB,
        uncompressed_offset: nth * 3 * MIB,
        bits: 0,
    });
    let ztoc = Ztoc {
        version: b"0.9".to_vec(),
        build_tool: Vec::new(),
        compressed_size: 10 + u64::from(spans) * MIB,
        uncompressed_size: u64::from(spans) * 3 * MIB,
        entries: Vec::new(),
        compression: Compression::Gzip,
        span_size: 3 * MIB,
        checkpoints: checkpoints.collect(),
        windows: Vec::new(),
        span_digests: vec![Sha256Digest([0; 32]); spans as usize],
        first_checkpoint_implied: false,
    };
    Arc::new(SpanTable::new(&ztoc).expect("spans that tile the stream"))
}

fn rules(background: Background) -> Rules {
    Rules { max_requests: 64, memory: 256 * MIB, background, background_rate: None }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn sends(planner: &mut Planner, now: Duration) -> Vec<Order> {
    let mut orders = Vec::new();
    while let Next::Send(order) = planner.next(now) {
        orders.push(order);
    }
    orders
}

/// The answer to `order` comes as a whole.
fn answer(planner: &mut Planner, order: &Order, now: Duration) {
    planner.first_byte(order.id, ms(10));
    for span in order.spans.clone() {
        planner.received(order.id, MIB);
        planner.landed(order.id, span, now);
    }
    planner.ended(order.id, End::Done, MIB * order.spans.len() as u64, ms(10), now);
    planner.release(&order.host, order.memory.iter().sum());
}

#[test]
fn neighbours_are_asked_for_together_and_gaps_bridged() {
    let mut planner = Planner::new(rules(Background::Off));
    let layer = planner.add("host", table(100), |span| span == 12);
    for span in [3, 4, 5, 7, 11, 13, 40] {
        planner.want(layer, span, Class::Demand);
    }
    let orders = sends(&mut planner, ms(0));
    let spans: Vec<Range<u32>> = orders.iter().map(|order| order.spans.clone()).collect();
    // 6 is one missing span: less than a round trip. 8 to 10 are more, and 12 is there.
    assert_eq!(spans, [3..8, 11..12, 13..14, 40..41]);
    assert!(sends(&mut planner, ms(0)).is_empty(), "nothing twice");
    answer(&mut planner, &orders[0], ms(20));
    planner.want(layer, 4, Class::Demand);
    assert_eq!(sends(&mut planner, ms(20)).len(), 1, "who asks for what is there knows better");
}

#[test]
fn what_is_listed_comes_in_its_order_behind_what_somebody_waits_for() {
    let mut planner = Planner::new(Rules { max_requests: 1, ..rules(Background::Off) });
    let layer = planner.add("host", table(100), |span| span == 41);
    // Twice, and with one that is there and one that the layer hasn't got.
    for count in [6, 0] {
        assert_eq!(planner.prefetch(layer, [60, 61, 62, 20, 40, 41, 42, 100, 200]), count);
    }
    let mut got = Vec::new();
    while let [order] = &sends(&mut planner, ms(0))[..] {
        got.push((order.class, order.spans.clone()));
        if got.len() == 1 {
            planner.want(layer, 80, Class::Demand);
        }
        answer(&mut planner, order, ms(0));
    }
    let prefetch = [20..21, 40..41, 42..43].map(|spans| (Class::Prefetch, spans));
    assert_eq!(got[..2], [(Class::Prefetch, 60..63), (Class::Demand, 80..81)]);
    assert_eq!(got[2..], prefetch);
    // What is unmounted is forgotten.
    planner.prefetch(layer, [5]);
    planner.forget(layer);
    assert!(sends(&mut planner, ms(0)).is_empty());
}

#[test]
fn who_waits_goes_first_and_takes_over_what_is_on_its_way() {
    let mut planner = Planner::new(rules(Background::Stream));
    let layer = planner.add("host", table(100), |_| false);
    planner.background_of(layer, true, ms(0));
    let now = PULL_PATIENCE;
    let background = sends(&mut planner, now);
    assert!(!background.is_empty() && background.iter().all(|order| order.class == Class::Background));
    // Something else: a new request at once, though the background has all turns that it gets.
    planner.want(layer, 90, Class::Demand);
    let demand = sends(&mut planner, now + ms(1));
    assert_eq!((demand.len(), demand[0].class, demand[0].spans.clone()), (1, Class::Demand, 90..91));
    // What the background is fetching: no new request, but it doesn't give way any more.
    for order in background.iter().chain(&demand) {
        planner.first_byte(order.id, ms(10));
    }
    assert!(!planner.may_receive(background[0].id));
    let span = background[0].spans.start;
    planner.want(layer, span, Class::Demand);
    let others = sends(&mut planner, now + ms(2));
    assert!(others.iter().all(|order| order.class == Class::Background), "{others:?}");
    assert!(planner.may_receive(background[0].id));
    // When that span has come, the rest of the request is background again.
    planner.landed(background[0].id, span, now + ms(3));
    assert!(!planner.may_receive(background[0].id));
    planner.landed(demand[0].id, 90, now + ms(3));
    assert!(planner.may_receive(background[0].id), "nobody waits any more");
}

#[test]
fn the_background_goes_on_where_readers_are_and_only_when_it_may() {
    let mut planner = Planner::new(rules(Background::Quiet));
    let (one, two) = (planner.add("host", table(50), |_| false), planner.add("host", table(50), |_| false));
    planner.background_of(one, true, ms(0));
    planner.background_of(two, true, ms(0));
    planner.want(two, 20, Class::Demand);
    planner.touched(two, 20, ms(0));
    let demand = sends(&mut planner, ms(0));
    assert_eq!(demand.len(), 1);
    answer(&mut planner, &demand[0], ms(30));
    assert_eq!(planner.next(ms(30)), Next::Wait(Some(ms(30) + QUIET)));
    let orders = sends(&mut planner, ms(30) + QUIET);
    assert_eq!(orders[0].layer, two, "the one that is read");
    assert_eq!(orders[0].spans.start, 21, "from where it is read");
    // A layer that is not mounted, and a rule that says no.
    let mut planner = Planner::new(rules(Background::Off));
    let layer = planner.add("host", table(50), |_| false);
    planner.background_of(layer, true, ms(0));
    assert_eq!(planner.next(ms(0)), Next::Wait(None));
    let mut planner = Planner::new(rules(Background::Stream));
    planner.add("host", table(50), |_| false);
    assert_eq!(planner.next(ms(0)), Next::Wait(None));
}

#[test]
fn the_background_waits_until_the_image_is_pulled() {
    let mut planner = Planner::new(rules(Background::Stream));
    let (one, two) = (planner.add("host", table(50), |_| false), planner.add("host", table(50), |_| false));
    planner.background_of(one, true, ms(0));
    assert_eq!(planner.next(ms(0)), Next::Wait(Some(PULL_PATIENCE)), "nobody reads yet");
    planner.background_of(two, true, ms(900));
    assert_eq!(planner.next(ms(900)), Next::Wait(Some(ms(900) + PULL_PATIENCE)), "there are more layers");
    planner.filling("host", true);
    let long = ms(900) + PULL_PATIENCE;
    assert_eq!(planner.next(long), Next::Wait(None), "one is filled in full");
    planner.filling("host", false);
    assert!(!sends(&mut planner, long).is_empty(), "that image may never be read");
    // A reader says that the pull is over.
    let mut planner = Planner::new(rules(Background::Stream));
    let layer = planner.add("host", table(50), |span| span == 0);
    planner.background_of(layer, true, ms(0));
    planner.touched(layer, 0, ms(5));
    let soon = USUAL_ROUND_TRIP * BACKGROUND_ROUND_TRIPS;
    assert!(soon < PULL_PATIENCE);
    assert!(sends(&mut planner, soon).iter().any(|order| order.class == Class::Background));
    // A fill keeps its host, and nothing stays of it.
    let mut planner = Planner::new(rules(Background::Stream));
    planner.filling("host", true);
    assert!(planner.take("host", MIB));
    planner.release("host", MIB);
    assert!(planner.hosts.contains_key("host"));
    planner.filling("host", false);
    assert!(planner.hosts.is_empty());
}

#[test]
fn the_background_leaves_the_line_to_who_reads_one_thing_after_the_other() {
    let mut planner = Planner::new(rules(Background::Stream));
    let layer = planner.add("host", table(100), |_| false);
    planner.background_of(layer, true, ms(0));
    // Ten milliseconds to the first byte, as `answer` has it: the next read comes within twenty.
    let mut now = ms(0);
    for span in [10, 30, 50, 70] {
        planner.want(layer, span, Class::Demand);
        let demand = sends(&mut planner, now);
        assert_eq!(demand.len(), 1, "{demand:?}");
        assert_eq!(planner.next(now + ms(1000)), Next::Wait(None), "while somebody waits");
        now += ms(40);
        answer(&mut planner, &demand[0], now);
        assert_eq!(planner.next(now), Next::Wait(Some(now + ms(20))));
        now += ms(19);
        assert_eq!(sends(&mut planner, now), []);
    }
    now += ms(1);
    let background = sends(&mut planner, now);
    assert!(!background.is_empty() && background.iter().all(|order| order.class == Class::Background));
}

#[test]
fn the_background_takes_no_more_than_it_is_given() {
    let rules = Rules { background_rate: Some(10 * MIB), ..rules(Background::Stream) };
    let mut planner = Planner::new(rules);
    let layer = planner.add("host", table(400), |_| false);
    planner.background_of(layer, true, ms(0));
    let (mut now, mut bytes) = (PULL_PATIENCE, 0);
    while now < PULL_PATIENCE + ms(10_000) {
        for order in sends(&mut planner, now) {
            bytes += MIB * order.spans.len() as u64;
            answer(&mut planner, &order, now);
        }
        match planner.next(now) {
            Next::Wait(Some(at)) => now = at,
            other => panic!("{other:?}"),
        }
    }
    assert!((90 * MIB..=120 * MIB).contains(&bytes), "{bytes} bytes in 10 s");
}

#[test]
fn a_layer_of_which_half_was_read_is_wanted_as_a_whole() {
    let mut planner = Planner::new(rules(Background::Quiet));
    let layer = planner.add("host", table(10), |_| false);
    planner.background_of(layer, true, ms(0));
    for span in [0, 2, 4, 6, 8] {
        assert!(matches!(planner.next(ms(0)), Next::Wait(_)), "before {span}");
        planner.want(layer, span, Class::Demand);
        let Next::Send(order) = planner.next(ms(0)) else { panic!("it is wanted") };
        answer(&mut planner, &order, ms(0));
    }
    let rest = sends(&mut planner, ms(1));
    let left = (0..10).any(|span| planner.layers[&layer].state(span) == Some(State::Missing));
    assert!(!left, "{rest:?}");
}

#[test]
fn one_host_leaves_the_others_their_share() {
    let mut planner = Planner::new(Rules { max_requests: 8, ..rules(Background::Off) });
    let slow = planner.add("slow", table(200), |_| false);
    let other = planner.add("other", table(10), |_| false);
    for span in (0..200).step_by(10) {
        planner.want(slow, span, Class::Demand);
    }
    let stuck = sends(&mut planner, ms(0));
    assert_eq!(stuck.len(), 4);
    planner.want(other, 3, Class::Demand);
    let orders = sends(&mut planner, ms(0));
    assert_eq!((orders.len(), orders[0].layer), (1, other));
    // Memory, too.
    let mut planner = Planner::new(Rules { memory: 20 * MIB, ..rules(Background::Off) });
    let slow = planner.add("slow", table(200), |_| false);
    let other = planner.add("other", table(10), |_| false);
    for span in (0..200).step_by(10) {
        planner.want(slow, span, Class::Demand);
    }
    assert_eq!(sends(&mut planner, ms(0)).len(), 3, "of 3 MiB each, in a half of 20");
    planner.want(other, 3, Class::Demand);
    assert_eq!(sends(&mut planner, ms(0)).len(), 1);
    assert!(!planner.take("slow", MIB), "others take none that isn't there");
    assert!(planner.take("third", MIB));
    planner.release("third", MIB);
}

#[test]
fn what_fails_rests_and_comes_back() {
    let mut planner = Planner::new(rules(Background::Stream));
    let layer = planner.add("host", table(4), |_| false);
    planner.background_of(layer, true, ms(0));
    let now = PULL_PATIENCE;
    let orders = sends(&mut planner, now);
    let all: usize = orders.iter().map(|order| order.spans.len()).sum();
    assert_eq!(all, 4);
    for order in &orders {
        planner.ended(order.id, End::Failed, 0, ms(0), now + ms(5));
        planner.release("host", order.memory.iter().sum());
    }
    let Next::Wait(Some(at)) = planner.next(now + ms(5)) else { panic!("it rests") };
    planner.want(layer, 1, Class::Demand);
    let demand = sends(&mut planner, now + ms(6));
    assert_eq!(demand.len(), 1, "for who waits it is tried at once");
    answer(&mut planner, &demand[0], now + ms(7));
    assert!(!sends(&mut planner, at).is_empty());
    planner.forget(layer);
    planner.remove(layer);
    assert!(planner.hosts.contains_key("host"), "its requests are under way");
}

/// What may happen.
#[derive(Debug, Clone)]
enum Event {
    Want(u8, u32, bool),
    Touch(u8, u32),
    Mount(u8),
    /// The order at this place among those under way has so many of its spans come, and then ends so.
    End(usize, u32, u8),
    Lose(u8, u32),
    Forget(u8),
    Remove(u8),
    Pass(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let span = 0u32..40;
    let layer = 0u8..3;
    prop::collection::vec(
        prop_oneof![
            6 => (layer.clone(), span.clone(), any::<bool>()).prop_map(|(l, s, d)| Event::Want(l, s, d)),
            4 => (layer.clone(), span.clone()).prop_map(|(l, s)| Event::Touch(l, s)),
            1 => layer.clone().prop_map(Event::Mount),
            6 => (any::<usize>(), 0u32..20, 0u8..4).prop_map(|(n, s, e)| Event::End(n, s, e)),
            1 => (layer.clone(), span).prop_map(|(l, s)| Event::Lose(l, s)),
            1 => layer.clone().prop_map(Event::Forget),
            1 => layer.prop_map(Event::Remove),
            1 => (0u64..2000).prop_map(Event::Pass),
        ],
        1..200,
    )
}

proptest! {
    /// Whatever happens: nothing is fetched twice at a time, nothing that is there is fetched unasked, every bound holds, and
    /// what is wanted is fetched in the end.
    #[test]
    fn any_events_keep_the_rules(events in events(), memory in 4u64..100, requests in 1usize..12) {
        let rules = Rules { max_requests: requests, memory: memory * MIB, ..rules(Background::Stream) };
        let mut planner = Planner::new(rules);
        let mut now = ms(0);
        let hosts = ["a", "b", "a"];
        let mut layers: Vec<Option<LayerId>> = hosts.iter().map(|host| Some(planner.add(host, table(40), |_| false))).collect();
        let mut running: Vec<Order> = Vec::new();
        let mut here: HashMap<LayerId, BTreeSet<u32>> = HashMap::new();
        let mut asked: BTreeSet<(LayerId, u32)> = BTreeSet::new();
        let mut in_use = 0u64;
        let check = |planner: &mut Planner, running: &mut Vec<Order>, here: &HashMap<LayerId, BTreeSet<u32>>, asked: &mut BTreeSet<(LayerId, u32)>, in_use: &mut u64, now| {
            for order in sends(planner, now) {
                prop_assert!(!order.spans.is_empty());
                for span in order.spans.clone() {
                    let flying = running.iter().any(|other| other.layer == order.layer && other.spans.contains(&span));
                    prop_assert!(!flying, "span {} is on its way already", span);
                    let there = here.get(&order.layer).is_some_and(|here| here.contains(&span));
                    prop_assert!(!there || asked.contains(&(order.layer, span)), "span {} is there", span);
                    asked.remove(&(order.layer, span));
                }
                let wanted: u64 = order.memory.iter().sum();
                prop_assert!(*in_use == 0 || *in_use + wanted <= memory * MIB, "{} bytes of memory", *in_use + wanted);
                *in_use += wanted;
                running.push(order);
            }
            prop_assert!(running.len() <= requests);
            prop_assert_eq!(planner.memory_in_use(), *in_use);
            Ok(())
        };
        for event in events {
            let of = |layer: u8| layers[layer as usize];
            match event {
                Event::Want(layer, span, demand) => if let Some(id) = of(layer) {
                    asked.insert((id, span));
                    // Who asks for what is there has lost it.
                    here.entry(id).or_default().remove(&span);
                    planner.want(id, span, if demand { Class::Demand } else { Class::Prefetch });
                },
                Event::Touch(layer, span) => if let Some(id) = of(layer) { planner.touched(id, span, now) },
                Event::Mount(layer) => if let Some(id) = of(layer) { planner.background_of(id, true, now) },
                Event::Lose(layer, span) => if let Some(id) = of(layer) {
                    here.entry(id).or_default().remove(&span);
                    planner.lost(id, span);
                },
                Event::Forget(layer) => if let Some(id) = of(layer) { planner.forget(id) },
                Event::Remove(layer) => if let Some(id) = layers[layer as usize].take() { planner.remove(id) },
                Event::Pass(passed) => now += ms(passed),
                Event::End(index, come, end) => if !running.is_empty() {
                    let order = running.swap_remove(index % running.len());
                    planner.first_byte(order.id, ms(7));
                    for span in order.spans.clone().take(come as usize) {
                        planner.landed(order.id, span, now);
                        here.entry(order.layer).or_default().insert(span);
                    }
                    let end = [End::Done, End::Failed, End::Busy, End::Stopped][end as usize];
                    planner.ended(order.id, end, u64::from(come) * MIB, ms(3), now);
                    let memory = order.memory.iter().sum();
                    planner.release(&order.host, memory);
                    in_use -= memory;
                },
            }
            check(&mut planner, &mut running, &here, &mut asked, &mut in_use, now)?;
        }
        // Everything comes to an end: what was asked for comes, and so does every span of a mounted layer.
        for id in layers.iter().flatten() {
            planner.background_of(*id, true, now);
        }
        for _ in 0..1000 {
            now += ms(10_000);
            check(&mut planner, &mut running, &here, &mut asked, &mut in_use, now)?;
            if running.is_empty() {
                break;
            }
            for order in running.drain(..) {
                answer(&mut planner, &order, now);
                in_use -= order.memory.iter().sum::<u64>();
                here.entry(order.layer).or_default().extend(order.spans.clone());
            }
        }
        for id in layers.iter().flatten() {
            prop_assert_eq!(here.get(id).map_or(0, BTreeSet::len), 40, "all of {:?}", id);
            planner.remove(*id);
        }
        prop_assert!(planner.hosts.is_empty() && planner.queue.is_empty());
    }
}
