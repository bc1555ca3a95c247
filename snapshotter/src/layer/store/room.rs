//! Keeps layers within the room that they may take: looks how much that is when something was written, and now and then, and
//! carries out what `cache` decides.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::statvfs;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::super::one::Layer;
use super::super::{LayerKey, files};
use super::Inner;
use crate::Error;
use crate::cache::{Candidate, Hold, Holding, Look, Situation, Step, choose, is_tight, plan};
use crate::fetch::blocking;

/// How long an age of spans lasts at most: what was used within it counts as used at the same time.
const AGE: Duration = Duration::from_secs(10 * 60);

/// The part of the quota after which a look is due, and a new age begins: a sixty-fourth.
const STEP_SHARE: u64 = 64;

/// The part of what is free after which a look is due: a quarter, so that the disk is hardly ever full.
const STEP_FREE_SHARE: u64 = 4;

/// How often one look makes room and counts again, at most: what could not be had the first time, or was fetched meanwhile.
const ROUNDS: usize = 4;

/// What the looks have in common.
#[derive(Debug, Default)]
pub(super) struct Room {
    looking: Mutex<Looking>,
    stop: CancellationToken,
}

impl Room {
    /// Nobody looks any more.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }
}

#[derive(Debug, Default)]
struct Looking {
    /// Since when an age lasts.
    aged: Option<Instant>,
    /// Bytes written in it.
    written: u64,
    /// Whether layers took more than they may, after all that could be done.
    over: bool,
    /// How matters stood at the last look.
    last: Option<Situation>,
}

/// Whose holding it is.
#[derive(Debug, Clone)]
enum Owner {
    Kept(LayerKey),
    Layer(Arc<Layer>),
}

/// All that takes room.
struct Inventory {
    situation: Situation,
    holdings: Vec<Holding>,
    owners: Vec<Owner>,
}

/// Says at its end that nobody looks any more: nobody waits for it then.
struct Attendance(Arc<crate::cache::Ledger>);

impl Drop for Attendance {
    fn drop(&mut self) {
        self.0.attend(false);
    }
}

impl Inner {
    /// Looks from now on when it is due.
    pub(super) fn keep_room(self: &Arc<Self>) {
        let ledger = Arc::clone(&self.node.fetch.ledger);
        let (this, stop) = (Arc::downgrade(self), self.room.stop.clone());
        let period = self.node.options.room_period;
        ledger.attend(true);
        let attendance = Attendance(Arc::clone(&ledger));
        // Not tracked: nobody waits for it at shutdown.
        tokio::spawn(async move {
            let _attendance = attendance;
            loop {
                let due = tokio::select! {
                    () = stop.cancelled() => return,
                    () = ledger.due() => true,
                    () = tokio::time::sleep(period) => false,
                };
                let Some(this) = this.upgrade() else { return };
                if due || this.is_worth_a_look().await {
                    this.look().await;
                }
            }
        });
    }

    /// Whether anything has changed since the last look: counting all layers' files costs some 20 ms where there are many.
    async fn is_worth_a_look(&self) -> bool {
        let mut looking = self.room.looking.lock().await;
        let Some(last) = looking.last else { return true };
        let Some(now) = self.situation(last.used, 0) else { return false };
        self.grow_older(0, now.quota, &mut looking);
        let ledger = &self.node.fetch.ledger;
        ledger.has_written()
            // Somebody may have unmounted since what could not go then.
            || now.used > now.quota
            || self.layers().values().any(|layer| layer.is_filling())
            || (now.is_above_mark() && !self.kept.is_empty())
            || is_tight(&now, &[], ledger.is_tight()) != ledger.is_tight()
    }

    /// Whether the file system is so full that nothing unused is kept. Where that isn't known, it is. Waits for the disk.
    pub(super) fn is_above_mark(&self) -> bool {
        self.situation(0, 0).is_none_or(|situation| situation.is_above_mark())
    }

    fn situation(&self, used: u64, short: u64) -> Option<Situation> {
        let found = match statvfs(&self.dir) {
            Ok(found) => found,
            Err(error) => {
                warn!(dir = %self.dir.display(), %error, "how full its file system is isn't known");
                return None;
            }
        };
        let len = found.f_blocks.saturating_mul(found.f_frsize);
        let available = found.f_bavail.saturating_mul(found.f_frsize);
        let options = &self.node.options;
        let (quota, mark) = (options.quota.of(len), options.unused_mark.of(len));
        Some(Situation { used, quota, len, available, mark, short })
    }

    /// Counts what there is. Waits for the disk.
    fn take_stock(&self, short: u64) -> Option<Inventory> {
        let (mut holdings, mut owners) = (Vec::new(), Vec::new());
        for (key, holding) in self.kept.holdings() {
            holdings.push(holding);
            owners.push(Owner::Kept(key));
        }
        let layers: Vec<Arc<Layer>> = self.layers().values().cloned().collect();
        for layer in layers {
            match layer.holding() {
                Ok(holding) => {
                    holdings.push(holding);
                    owners.push(Owner::Layer(layer));
                }
                // It is being removed.
                Err(Error::NotFound(_)) => {}
                Err(error) => warn!(layer = layer.key().0, %error, "what a layer takes can't be counted"),
            }
        }
        let used = holdings.iter().map(|holding| holding.bytes).sum();
        let situation = self.situation(used, short)?;
        let unused = holdings.iter().filter(|holding| holding.hold == Hold::Unused);
        let unused: u64 = unused.map(|holding| holding.bytes).sum();
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let metrics = &self.node.metrics;
        metrics.layers_bytes.set(gauge(used));
        metrics.layers_unused_bytes.set(gauge(unused));
        metrics.layers_quota_bytes.set(gauge(situation.quota));
        Some(Inventory { situation, holdings, owners })
    }

    async fn inventory(self: &Arc<Self>, short: u64) -> Option<Inventory> {
        let this = Arc::clone(self);
        blocking(move || Ok(this.take_stock(short))).await.ok().flatten()
    }

    /// Looks how matters stand and makes room where that is due; says how many bytes that gave.
    pub(super) async fn look(self: &Arc<Self>) -> u64 {
        let mut looking = self.room.looking.lock().await;
        let ledger = Arc::clone(&self.node.fetch.ledger);
        let look = ledger.look();
        let freed = self.look_for(look, &mut looking).await;
        let this = Arc::clone(self);
        let now = blocking(move || Ok(this.situation(0, look.short))).await.ok().flatten();
        ledger.looked(look, freed > 0 || now.is_some_and(|now| now.has_room()));
        freed
    }

    async fn look_for(self: &Arc<Self>, look: Look, looking: &mut Looking) -> u64 {
        let ledger = &self.node.fetch.ledger;
        let mut freed = 0;
        for round in 0..ROUNDS {
            // What could not be written has been made room for in the first round.
            let short = if round == 0 { look.short } else { 0 };
            let Some(found) = self.inventory(short).await else { break };
            let situation = found.situation;
            looking.last = Some(situation);
            if round == 0 {
                self.grow_older(look.written, situation.quota, looking);
            }
            ledger.set_step((situation.quota / STEP_SHARE).min(situation.available / STEP_FREE_SHARE));
            let steps = plan(&situation, &found.holdings);
            // Before anything goes for what comes unasked.
            self.weigh(is_tight(&situation, &steps, ledger.is_tight()));
            let mut gone = 0;
            for step in &steps {
                gone += self.carry_out(*step, &found).await;
            }
            if gone > 0 {
                info!(
                    bytes = gone,
                    used = situation.used,
                    quota = situation.quota,
                    short,
                    "room was made on the disk"
                );
            }
            freed += gone;
            let over = situation.used > situation.quota;
            if over && gone == 0 && !looking.over {
                warn!(
                    used = situation.used,
                    quota = situation.quota,
                    "layers take more than their quota, and all of them are in use: remove images or containers, or raise disk.quota"
                );
            }
            looking.over = over && gone == 0;
            if gone == 0 {
                break;
            }
        }
        freed
    }

    /// A new age of spans begins when it is time.
    fn grow_older(&self, written: u64, quota: u64, looking: &mut Looking) {
        looking.written = looking.written.saturating_add(written);
        let since = looking.aged.get_or_insert_with(Instant::now);
        if since.elapsed() >= AGE || looking.written >= quota / STEP_SHARE {
            self.node.fetch.ledger.next_age();
            (looking.aged, looking.written) = (Some(Instant::now()), 0);
        }
    }

    /// What nobody asks for may be fetched from now on, or not any more.
    fn weigh(&self, tight: bool) {
        if !self.node.fetch.ledger.set_tight(tight) {
            return;
        }
        if tight {
            info!("little room is left on the disk: the rest of layers isn't fetched until it is read");
        } else {
            info!("there is room on the disk: the rest of layers is fetched again");
        }
        for spans in self.layers().values().filter_map(|layer| layer.spans()) {
            spans.weigh_background();
        }
    }

    async fn carry_out(self: &Arc<Self>, step: Step, found: &Inventory) -> u64 {
        let (what, gone) = match step {
            Step::Drop(index) => match &found.owners[index] {
                Owner::Kept(key) => ("unused", self.drop_kept(key).await),
                Owner::Layer(layer) => {
                    ("unmounted", self.drop_layer(layer, found.holdings[index].bytes).await)
                }
            },
            Step::Empty(index) => match &found.owners[index] {
                Owner::Kept(_) => return 0, // those go as a whole
                Owner::Layer(layer) => {
                    let emptied = layer.empty().await;
                    ("unmounted", emptied.unwrap_or_else(|error| failed(layer, &error)))
                }
            },
            Step::Thin(bytes) => ("spans", self.thin(bytes, found).await),
        };
        if gone > 0 {
            self.node.metrics.given_back(what, gone);
        }
        gone
    }

    /// Deletes a layer that a snapshot refers to and nobody has mounted; it is asked for anew when it is needed.
    async fn drop_layer(&self, layer: &Arc<Layer>, bytes: u64) -> u64 {
        let key = layer.key();
        let Some(_held) = self.try_gate(key) else { return 0 };
        let same = self.find(key).is_some_and(|found| Arc::ptr_eq(&found, layer));
        if !same || !layer.leave().await || !self.take_out(layer) {
            return 0;
        }
        let dir = self.dir.join(&key.0);
        let deleted = blocking(move || files::delete(&dir)).await;
        deleted.map(|()| bytes).unwrap_or_else(|error| failed(layer, &error))
    }

    /// Gives back `bytes` of spans of mounted layers, those used longest ago.
    async fn thin(self: &Arc<Self>, bytes: u64, found: &Inventory) -> u64 {
        let age = self.node.fetch.ledger.age();
        let mounted: Vec<Arc<Layer>> = found
            .owners
            .iter()
            .zip(&found.holdings)
            .filter_map(|(owner, holding)| match owner {
                Owner::Layer(layer) if holding.hold == Hold::Mounted => Some(Arc::clone(layer)),
                _ => None,
            })
            .collect();
        let given = blocking(move || {
            let opened: Vec<_> = mounted.iter().map(|layer| layer.spans()).collect();
            let mut candidates = Vec::new();
            for (layer, spans) in opened.iter().enumerate() {
                let held = spans.iter().flat_map(|spans| spans.held());
                candidates.extend(held.map(|(held, len)| {
                    let unused_for = if held.used == 0 { u16::MAX } else { age.wrapping_sub(held.used) };
                    Candidate { layer, span: held.id, len, unused_for }
                }));
            }
            let mut given = 0;
            for (layer, ids) in choose(candidates, bytes) {
                let Some(spans) = &opened[layer] else { continue };
                match spans.give_back(&ids) {
                    Ok(bytes) => given += bytes,
                    Err(error) => {
                        warn!(layer = mounted[layer].key().0, %error, "spans can't be given back");
                    }
                }
            }
            Ok(given)
        });
        given.await.unwrap_or(0)
    }

    /// Does `work`, which needs about `need` bytes on the disk; again, if there were none and room could be made.
    ///
    /// # Errors
    /// What `work` says.
    pub(super) async fn with_room<T, F: Future<Output = Result<T, Error>>>(
        &self,
        need: u64,
        work: impl Fn() -> F,
    ) -> Result<T, Error> {
        match work().await {
            Err(Error::NoSpace(_)) if self.node.fetch.ledger.make_room(need).await => work().await,
            other => other,
        }
    }
}

/// Says that a layer's room could not be had, which is none then.
fn failed(layer: &Layer, error: &Error) -> u64 {
    warn!(layer = layer.key().0, %error, "what a layer takes can't be given back");
    0
}
