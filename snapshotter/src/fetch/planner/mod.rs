//! Decides what is fetched next, for the whole node: state in, decisions out. No I/O, no clock, no lock of its own: times
//! come as durations since any fixed moment, and a test can play everything through.
//!
//! Of each lazy layer it knows where its spans lie and which are missing, wanted or on their way; of each host how fast it
//! is (`host`); of each reader where it has come to (`streams`). `engine` carries the decisions out.

mod host;
mod layer;
mod streams;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use spandrel_ztoc::{SpanTable, WINDOW_LEN};

use self::host::Host;
use self::layer::{Layer, State};
use super::limits::{
    BACKGROUND_DECODED_LEN, DEMAND_MEMORY_SHARE, HOST_SHARE, LAYER_FETCHES, MAX_DECODED_LEN, QUIET,
};

/// Why something is fetched, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A reader waits for it.
    Demand,
    /// A reader is on the way to it.
    ReadAhead,
    /// It is known to be needed.
    Prefetch,
    /// The layer is to be complete some time.
    Background,
}

impl Class {
    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Demand => "demand",
            Self::ReadAhead => "readahead",
            Self::Prefetch => "prefetch",
            Self::Background => "background",
        }
    }
}

/// When the rest of layers is fetched that nobody has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Background {
    /// As soon as the pull is over, which the first read says or some time without one; whenever no reader waits, nor is likely
    /// to in a moment.
    #[default]
    Stream,
    /// When no reader has waited for a while.
    Quiet,
    /// Never.
    Off,
}

/// A layer that the planner knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerId(pub u64);

/// A request that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(pub u64);

/// What is to be fetched with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its number.
    pub id: OrderId,
    /// Of which layer.
    pub layer: LayerId,
    /// Of which host.
    pub host: Arc<str>,
    /// Neighbouring spans, none of them empty in the blob.
    pub spans: Range<u32>,
    /// The most urgent reason.
    pub class: Class,
    /// Bytes of memory that each of them was given.
    pub memory: Vec<u64>,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Send this request.
    Send(Order),
    /// Nothing, until something happens or this moment comes.
    Wait(Option<Duration>),
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Everything came.
    Done,
    /// It was given up by this side.
    Stopped,
    /// The host failed; it may be asked again.
    Failed,
    /// The host asks for patience.
    Busy,
}

/// What operators choose.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Requests under way at a time, on the whole node.
    pub max_requests: usize,
    /// Bytes that spans may have in memory, from before their request on until they are written.
    pub memory: u64,
    /// Whether and when layers are completed.
    pub background: Background,
    /// Most bytes a second that this takes; `None` for as many as come.
    pub background_rate: Option<u64>,
}

/// When the planner is to be asked again, if nothing happens before.
struct Wake(Option<Duration>);

impl Wake {
    fn at(&mut self, moment: Duration) {
        self.0 = Some(self.0.map_or(moment, |have| have.min(moment)));
    }
}

/// A request that is under way.
#[derive(Debug)]
struct Running {
    layer: LayerId,
    host: Arc<str>,
    spans: Range<u32>,
    /// Of each span, why it is fetched; `None` when it has come.
    classes: Vec<Option<Class>>,
    class: Class,
    /// Whether bytes are coming.
    receiving: bool,
}

/// A span in the queue: most urgent first, then the one that has waited longest.
type Queued = (Class, u64, LayerId, u32);

/// The plan of the node.
#[derive(Debug)]
pub struct Planner {
    rules: Rules,
    layers: HashMap<LayerId, Layer>,
    hosts: HashMap<Arc<str>, Host>,
    queue: BTreeSet<Queued>,
    running: HashMap<OrderId, Running>,
    memory: u64,
    /// Counts layers, orders and places in the queue.
    count: u64,
    /// Before this moment no more bytes are asked for in the background.
    background_from: Duration,
}

impl Planner {
    /// A plan without layers.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            layers: HashMap::new(),
            hosts: HashMap::new(),
            queue: BTreeSet::new(),
            running: HashMap::new(),
            memory: 0,
            count: 0,
            background_from: Duration::ZERO,
        }
    }

    fn count(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// A layer with these spans, of which `here` are there.
    pub fn add(&mut self, host: &str, table: Arc<SpanTable>, here: impl Fn(u32) -> bool) -> LayerId {
        let id = LayerId(self.count());
        let host: Arc<str> = match self.hosts.get_key_value(host) {
            Some((name, _)) => Arc::clone(name),
            None => host.into(),
        };
        self.hosts.entry(Arc::clone(&host)).or_default().layers += 1;
        self.layers.insert(id, Layer::new(host, table, here));
        id
    }

    /// The layer is of no concern any more. Its requests end as they end.
    pub fn remove(&mut self, id: LayerId) {
        self.forget(id);
        let Some(layer) = self.layers.remove(&id) else { return };
        if let Some(host) = self.hosts.get_mut(&layer.host) {
            host.layers -= 1;
            if host.is_idle() {
                self.hosts.remove(&layer.host);
            }
        }
    }

    /// Nothing of the layer is wanted now.
    pub fn forget(&mut self, id: LayerId) {
        let Some(layer) = self.layers.get_mut(&id) else { return };
        self.queue.retain(|(_, _, of, _)| *of != id);
        layer.unqueue();
    }

    /// Whether spans of the layer may be fetched that nobody asks for.
    pub fn background_of(&mut self, id: LayerId, on: bool, now: Duration) {
        let Some(layer) = self.layers.get_mut(&id) else { return };
        layer.background = on;
        // Whoever mounts it is about to read it, and may still be pulling what else the image has.
        if on && let Some(host) = self.hosts.get_mut(&layer.host) {
            (host.last_demand, host.unread_since) = (Some(now), Some(now));
        }
    }

    /// A layer of `host` is being filled in full, or isn't any more: somebody waits for it before anything is read.
    pub fn filling(&mut self, host: &str, begun: bool) {
        if begun {
            match self.hosts.get_mut(host) {
                Some(host) => host.fills += 1,
                None => self.hosts.entry(host.into()).or_default().fills += 1,
            }
        } else if let Some(found) = self.hosts.get_mut(host) {
            found.fills = found.fills.saturating_sub(1);
            if found.is_idle() {
                self.hosts.remove(host);
            }
        }
    }

    /// Somebody reads a layer: its image is no longer being pulled.
    fn is_read(&mut self, id: LayerId) {
        if let Some(host) = self.layers.get(&id).and_then(|layer| self.hosts.get_mut(&layer.host)) {
            host.unread_since = None;
        }
    }

    /// Span `span` is wanted: it is missing, or is to be fetched once more.
    pub fn want(&mut self, id: LayerId, span: u32, class: Class) {
        if class == Class::Demand {
            self.is_read(id);
        }
        let Some(layer) = self.layers.get_mut(&id) else { return };
        match layer.state(span) {
            None => {}
            Some(State::Flying(order)) => self.hurry(order, span, class),
            Some(State::Queued(have, _)) if have <= class => {}
            Some(_) => {
                let place = self.count();
                self.enqueue(id, span, class, place);
            }
        }
    }

    /// These spans are known to be needed, in this order: those that are missing are wanted. Gives how many that are.
    pub fn prefetch(&mut self, id: LayerId, spans: impl IntoIterator<Item = u32>) -> usize {
        let mut count = 0;
        for span in spans {
            if self.layers.get(&id).and_then(|layer| layer.state(span)) == Some(State::Missing) {
                let place = self.count();
                self.enqueue(id, span, Class::Prefetch, place);
                count += 1;
            }
        }
        count
    }

    /// Span `span` is wanted by somebody more urgently, if it is on its way at all.
    pub fn promote(&mut self, id: LayerId, span: u32, class: Class) {
        let Some(layer) = self.layers.get(&id) else { return };
        match layer.state(span) {
            Some(State::Flying(order)) => self.hurry(order, span, class),
            Some(State::Queued(have, _)) if class < have => {
                let place = self.count();
                self.enqueue(id, span, class, place);
            }
            _ => {}
        }
    }

    fn enqueue(&mut self, id: LayerId, span: u32, class: Class, place: u64) {
        let Some(layer) = self.layers.get_mut(&id) else { return };
        if let Some(State::Queued(class, place)) = layer.set(span, State::Queued(class, place)) {
            self.queue.remove(&(class, place, id, span));
        }
        self.queue.insert((class, place, id, span));
    }

    fn hurry(&mut self, order: OrderId, span: u32, class: Class) {
        let Some(running) = self.running.get_mut(&order) else { return };
        let index = (span - running.spans.start) as usize;
        if let Some(Some(have)) = running.classes.get_mut(index) {
            *have = class.min(*have);
            self.reclass(order);
        }
    }

    /// Recounts how urgent a request is.
    fn reclass(&mut self, order: OrderId) {
        let Some(running) = self.running.get_mut(&order) else { return };
        let class = running.classes.iter().flatten().min().copied().unwrap_or(Class::Background);
        let former = std::mem::replace(&mut running.class, class);
        if former != class
            && let Some(host) = self.hosts.get_mut(&running.host)
        {
            host.changed(former, class, running.receiving);
        }
    }

    /// A reader is at span `span` of the layer: what it will want next is read ahead, and what is fetched in the
    /// background goes on from there.
    pub fn touched(&mut self, id: LayerId, span: u32, now: Duration) {
        self.is_read(id);
        let touch = self.count();
        let Some(layer) = self.layers.get_mut(&id) else { return };
        let window = self.hosts.get(&layer.host).map_or(0, |host| host.window(layer.mean_len()));
        let ahead = layer.touched(span, window, touch, now);
        for span in ahead {
            if self.layers.get(&id).and_then(|layer| layer.state(span)) == Some(State::Missing) {
                let place = self.count();
                self.enqueue(id, span, Class::ReadAhead, place);
            }
        }
    }

    /// What to do at `now`. To be asked again until there is nothing.
    pub fn next(&mut self, now: Duration) -> Next {
        if self.running.len() >= self.rules.max_requests {
            return Next::Wait(None);
        }
        let mut wake = Wake(None);
        for class in [Class::Demand, Class::ReadAhead, Class::Prefetch] {
            if let Some((id, spans)) = self.choose(class, now, &mut wake) {
                return self.send(id, spans, class, now);
            }
        }
        match self.background(now, &mut wake) {
            Some((id, spans)) => self.send(id, spans, Class::Background, now),
            None => Next::Wait(wake.0),
        }
    }

    /// What of a class is to be asked for now.
    fn choose(&self, class: Class, now: Duration, wake: &mut Wake) -> Option<(LayerId, Range<u32>)> {
        let mut without_turn: Vec<&str> = Vec::new();
        let all = (class, 0, LayerId(0), 0)..=(class, u64::MAX, LayerId(u64::MAX), u32::MAX);
        for (_, _, id, span) in self.queue.range(all) {
            let Some(layer) = self.layers.get(id) else { continue };
            if without_turn.contains(&&*layer.host) || layer.running >= LAYER_FETCHES {
                continue;
            }
            let Some(host) = self.hosts.get(&layer.host) else { continue };
            if !self.has_turn(host, class, now, wake) {
                without_turn.push(&layer.host);
                // Nobody is left who could be asked: the queue may be long.
                if without_turn.len() == self.hosts.len() {
                    break;
                }
                continue;
            }
            if let Some(spans) = self.fitting(layer, host, self.run(layer, host, *span, class), class) {
                return Some((*id, spans));
            }
        }
        None
    }

    fn has_turn(&self, host: &Host, class: Class, now: Duration, wake: &mut Wake) -> bool {
        if let Some(until) = host.rests_until(class, now) {
            wake.at(until);
            return false;
        }
        host.has_turn(class, self.host_requests())
    }

    /// Requests that one host may have: a half of all, so that one that never answers leaves the rest to others.
    fn host_requests(&self) -> usize {
        (self.rules.max_requests / HOST_SHARE as usize).max(1)
    }

    /// The spans that are asked for together with `span`: neighbours that are wanted too, and what is missing between them
    /// where that costs less than another round trip.
    fn run(&self, layer: &Layer, host: &Host, span: u32, class: Class) -> Range<u32> {
        let (most, bridge) = (host.request_len(), host.bridge_len());
        let decoded = if class == Class::Demand { MAX_DECODED_LEN } else { BACKGROUND_DECODED_LEN };
        let mut run = span..span + 1;
        let fits =
            |run: &Range<u32>| layer.compressed_len(run) <= most && layer.uncompressed_len(run) <= decoded;
        // Bytes before the one that is waited for would delay it; after it they cost nobody anything.
        while let Some(next) = layer.next_queued(run.end, bridge) {
            let longer = run.start..next + 1;
            if !fits(&longer) {
                break;
            }
            run = longer;
        }
        run
    }

    /// As much of `spans`, from its beginning, as there is memory for.
    fn fitting(&self, layer: &Layer, host: &Host, spans: Range<u32>, class: Class) -> Option<Range<u32>> {
        let all = self.rules.memory;
        // Whatever fills the memory otherwise, who waits for something finds some.
        let most = if class == Class::Demand { all } else { all - all / DEMAND_MEMORY_SHARE };
        let mut spans = spans;
        loop {
            let wanted: u64 = spans.clone().map(|span| memory_of(layer, span)).sum();
            // What is longer than a share has it alone.
            let alone = spans.len() == 1;
            let fits = |have: u64, most: u64| (alone && have == 0) || have.saturating_add(wanted) <= most;
            if fits(self.memory, most) && fits(host.memory, most / u64::from(HOST_SHARE)) {
                return Some(spans);
            }
            if alone {
                return None;
            }
            spans.end -= (spans.end - spans.start) / 2;
        }
    }

    fn send(&mut self, id: LayerId, spans: Range<u32>, class: Class, now: Duration) -> Next {
        let order = OrderId(self.count());
        let Some(layer) = self.layers.get_mut(&id) else { return Next::Wait(None) };
        let memory: Vec<u64> = spans.clone().map(|span| memory_of(layer, span)).collect();
        let mut classes = Vec::with_capacity(memory.len());
        for span in spans.clone() {
            let former = layer.set(span, State::Flying(order));
            if let Some(State::Queued(class, place)) = former {
                self.queue.remove(&(class, place, id, span));
                classes.push(Some(class));
            } else {
                classes.push(Some(class.max(Class::ReadAhead)));
            }
        }
        layer.running += 1;
        let host = Arc::clone(&layer.host);
        let total: u64 = memory.iter().sum();
        self.memory += total;
        if let Some(host) = self.hosts.get_mut(&layer.host) {
            host.memory += total;
            host.sent(class, now);
        }
        if class == Class::Background
            && let Some(rate) = self.rules.background_rate
        {
            let micros = layer.compressed_len(&spans).saturating_mul(1_000_000) / rate.max(1);
            let takes = Duration::from_micros(micros);
            self.background_from = self.background_from.max(now) + takes;
        }
        let running = Running {
            layer: id,
            host: Arc::clone(&host),
            spans: spans.clone(),
            classes,
            class,
            receiving: false,
        };
        self.running.insert(order, running);
        Next::Send(Order { id: order, layer: id, host, spans, class, memory })
    }

    /// What is to be fetched though nobody asks for it.
    fn background(&self, now: Duration, wake: &mut Wake) -> Option<(LayerId, Range<u32>)> {
        let quiet = match self.rules.background {
            Background::Off => return None,
            Background::Quiet => QUIET,
            Background::Stream => Duration::ZERO,
        };
        let mut layers: Vec<(&LayerId, &Layer, &Host)> = self
            .layers
            .iter()
            .filter(|(_, layer)| layer.background && layer.missing > 0 && layer.running < LAYER_FETCHES)
            .filter_map(|(id, layer)| Some((id, layer, self.hosts.get(&layer.host)?)))
            .collect();
        if layers.is_empty() {
            return None;
        }
        if now < self.background_from {
            wake.at(self.background_from);
            return None;
        }
        // Those that are being read first, the last one of them first; then in the order of their mounts.
        layers.sort_by_key(|(id, layer, _)| (std::cmp::Reverse(layer.last_touch), **id));
        for (id, layer, host) in layers {
            match host.background_from(quiet) {
                Some(from) if now >= from => {}
                Some(from) => {
                    wake.at(from);
                    continue;
                }
                // The planner is asked again when the fill, or what somebody waits for, has ended.
                None => continue,
            }
            if !self.has_turn(host, Class::Background, now, wake) {
                continue;
            }
            let Some(spans) = layer.next_missing(host.request_len(), BACKGROUND_DECODED_LEN) else {
                continue;
            };
            if let Some(spans) = self.fitting(layer, host, spans, Class::Background) {
                return Some((*id, spans));
            }
        }
        None
    }

    /// Whether a request should go on taking bytes now: what nobody waits for gives way to what somebody waits for.
    pub fn may_receive(&self, order: OrderId) -> bool {
        let Some(running) = self.running.get(&order) else { return true };
        if running.class < Class::Prefetch {
            return true;
        }
        self.hosts.get(&running.host).is_none_or(|host| !host.demand_is_coming())
    }

    /// The first byte of an answer came `after` it was asked for.
    pub fn first_byte(&mut self, order: OrderId, after: Duration) {
        let Some(running) = self.running.get_mut(&order) else { return };
        running.receiving = true;
        if let Some(host) = self.hosts.get_mut(&running.host) {
            host.first_byte(running.class, after);
        }
    }

    /// Bytes of an answer have come.
    pub fn received(&mut self, order: OrderId, len: u64) {
        let Some(running) = self.running.get(&order) else { return };
        if let Some(host) = self.hosts.get_mut(&running.host) {
            host.received += len;
        }
    }

    /// A span has come, and nobody waits for it any more. It still has its memory. Gives the most urgent reason for which it
    /// was fetched.
    pub fn landed(&mut self, order: OrderId, span: u32, now: Duration) -> Option<Class> {
        let running = self.running.get_mut(&order)?;
        let index = span.checked_sub(running.spans.start).map(|index| index as usize);
        let class = index.and_then(|index| running.classes.get_mut(index)).and_then(Option::take);
        let id = running.layer;
        self.reclass(order);
        let Some(layer) = self.layers.get_mut(&id) else { return class };
        if class == Some(Class::Demand)
            && let Some(host) = self.hosts.get_mut(&layer.host)
        {
            host.last_demand = Some(now);
        }
        layer.set(span, State::Here);
        let read = class.is_some_and(|class| class <= Class::ReadAhead) && layer.was_read();
        if read && self.rules.background != Background::Off {
            for span in layer.all_missing() {
                let place = self.count();
                self.enqueue(id, span, Class::Prefetch, place);
            }
        }
        class
    }

    /// A span that had come is missing: it could not be written, or not be read again.
    pub fn lost(&mut self, id: LayerId, span: u32) {
        if let Some(layer) = self.layers.get_mut(&id)
            && layer.state(span) == Some(State::Here)
        {
            layer.set(span, State::Missing);
        }
    }

    /// A request has ended, having taken `body` of time for `len` bytes. What has not come is missing.
    pub fn ended(&mut self, order: OrderId, end: End, len: u64, body: Duration, now: Duration) {
        let Some(running) = self.running.remove(&order) else { return };
        let mut starved = !self.queue.is_empty();
        if let Some(layer) = self.layers.get_mut(&running.layer) {
            layer.running -= 1;
            starved |= layer.background && layer.missing > 0;
            for span in running.spans.clone() {
                if layer.state(span) == Some(State::Flying(order)) {
                    layer.set(span, State::Missing);
                }
            }
        }
        if let Some(host) = self.hosts.get_mut(&running.host) {
            host.ended(running.class, running.receiving, end, len, body, starved, now);
            if host.is_idle() {
                self.hosts.remove(&running.host);
            }
        }
    }

    /// Takes memory for something else than an order, if there is some.
    pub fn take(&mut self, host: &str, len: u64) -> bool {
        let most = self.rules.memory - self.rules.memory / DEMAND_MEMORY_SHARE;
        let of_host = self.hosts.get(host).map_or(0, |host| host.memory);
        let fits = |have: u64, most: u64| have == 0 || have.saturating_add(len) <= most;
        if !fits(self.memory, most) || !fits(of_host, most / u64::from(HOST_SHARE)) {
            return false;
        }
        self.memory += len;
        match self.hosts.get_mut(host) {
            Some(host) => host.memory += len,
            None => self.hosts.entry(host.into()).or_default().memory += len,
        }
        true
    }

    /// Memory of a layer of `host` is free again.
    pub fn release(&mut self, host: &str, len: u64) {
        self.memory = self.memory.saturating_sub(len);
        if let Some(found) = self.hosts.get_mut(host) {
            found.memory = found.memory.saturating_sub(len);
            if found.is_idle() {
                self.hosts.remove(host);
            }
        }
    }

    /// How long a request to the host waits for its first byte before it is sent a second time; `None` when that isn't
    /// known, or was done too often. [`Planner::hedged`] counts it.
    pub fn hedge_after(&self, id: LayerId) -> Option<Duration> {
        let layer = self.layers.get(&id)?;
        self.hosts.get(&layer.host)?.hedge_after()
    }

    /// Takes note that a request is being sent a second time.
    pub fn hedged(&mut self, id: LayerId) {
        if let Some(host) = self.layers.get(&id).and_then(|layer| self.hosts.get_mut(&layer.host)) {
            host.hedges += 1;
        }
    }

    /// Bytes of memory that are given out now.
    #[cfg(test)]
    pub(crate) fn memory_in_use(&self) -> u64 {
        self.memory
    }
}

/// Memory that a span takes: its bytes, and the window it is decoded from.
fn memory_of(layer: &Layer, span: u32) -> u64 {
    layer.uncompressed_len(&(span..span + 1)) + WINDOW_LEN as u64
}
