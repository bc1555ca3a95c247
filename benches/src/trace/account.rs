//! A trace's account: how long how many requests were under way, what the cores did then, and when nothing was.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Result, bail};
use spandrel_fixtures::proxy::Logged;

use super::Line;
use crate::report::table::Table;
use crate::report::units::{percent, seconds, whole_bytes};

/// Gaps that are shown.
const GAPS: usize = 10;

/// A core that does something for this share of a look is busy.
const BUSY: f64 = 0.5;

/// From more than so many requests under way on they count alike.
const MOST: usize = 3;

/// A part of the time.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Part {
    from: f64,
    to: f64,
    /// Requests under way.
    under_way: usize,
}

impl Part {
    fn len(&self) -> f64 {
        self.to - self.from
    }

    /// How long both last.
    fn shared(&self, from: f64, to: f64) -> f64 {
        (self.to.min(to) - self.from.max(from)).max(0.0)
    }
}

/// The text about a trace.
///
/// # Errors
/// When it doesn't say when the program was ready: the measurement failed.
pub fn account(lines: &[Line]) -> Result<String> {
    let start = lines.iter().find_map(|line| match line {
        Line::Start { name, cores, pulled, ready } => Some((name, *cores, *pulled, *ready)),
        _ => None,
    });
    let Some((name, cores, pulled, ready)) = start else {
        bail!("it doesn't say when the program was ready")
    };
    let requests: Vec<&Logged> = lines
        .iter()
        .filter_map(|line| if let Line::Request(request) = line { Some(request) } else { None })
        .filter(|request| request.begin < ready)
        .collect();
    let parts = parts(&requests, ready);
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{name}: pulled {}, ready {}, {} requests\n",
        seconds(pulled),
        seconds(ready),
        requests.len()
    );
    text += &under_way(&parts, lines, cores, ready).text();
    let _ = writeln!(
        text,
        "\nBy kind, until ready (waited: from each request's arrival to its first byte, added up):\n"
    );
    text += &kinds(&requests).text();
    let _ = writeln!(text, "\nThe longest times without a request:\n");
    text += &gaps(&parts, &requests, lines).text();
    Ok(text)
}

/// The time until ready, cut wherever a request begins or ends.
fn parts(requests: &[&Logged], ready: f64) -> Vec<Part> {
    let mut changes: Vec<(f64, isize)> = Vec::new();
    for request in requests {
        changes.extend([(request.begin.max(0.0), 1), (request.end.min(ready), -1)]);
    }
    changes.push((ready, 0));
    changes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut parts, mut from, mut under_way) = (Vec::new(), 0.0, 0_isize);
    for (at, change) in changes {
        if at > from {
            let under_way = usize::try_from(under_way).unwrap_or_default();
            parts.push(Part { from, to: at, under_way });
            from = at;
        }
        under_way += change;
    }
    parts
}

/// Looks at the cores.
fn looks(lines: &[Line]) -> impl Iterator<Item = (f64, f64, f64)> {
    lines.iter().filter_map(|line| match line {
        Line::Cores { from, to, busy } if to > from => Some((*from, *to, *busy)),
        _ => None,
    })
}

/// CPU seconds in a part, and how long a core was busy in it, as far as looks tell: what a look saw is spread evenly over it.
fn cpu_in(part: &Part, lines: &[Line]) -> (f64, f64) {
    let mut sums = (0.0, 0.0);
    for (from, to, busy) in looks(lines) {
        let shared = part.shared(from, to);
        sums.0 += busy * shared / (to - from);
        if busy >= BUSY * (to - from) {
            sums.1 += shared;
        }
    }
    sums
}

fn under_way(parts: &[Part], lines: &[Line], cores: usize, ready: f64) -> Table {
    let mut table = Table::new(
        1,
        [
            "requests under way",
            "time",
            "of all",
            "of it with a core busy",
            "cores busy on average",
            "with no core busy",
        ],
    );
    for number in 0..=MOST {
        let of = |part: &&Part| part.under_way.min(MOST) == number;
        let time = parts.iter().filter(of).map(Part::len).fold(0.0, |sum, len| sum + len);
        let cpu = parts.iter().filter(of).map(|part| cpu_in(part, lines));
        let (cpu, busy) = cpu.fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let name = if number == MOST { format!("{number} or more") } else { number.to_string() };
        let average = if time > 0.0 { cpu / time } else { 0.0 };
        table.row([
            name,
            seconds(time),
            percent(time / ready.max(f64::MIN_POSITIVE)),
            seconds(busy),
            format!("{average:.1} of {cores}"),
            seconds((time - busy).max(0.0)),
        ]);
    }
    table
}

fn kinds(requests: &[&Logged]) -> Table {
    let mut kinds: BTreeMap<&str, (u32, u64, f64)> = BTreeMap::new();
    for request in requests {
        let sums = kinds.entry(&request.kind).or_default();
        sums.0 += 1;
        sums.1 += request.bytes;
        sums.2 += request.first.map_or(0.0, |first| first - request.begin);
    }
    let mut table = Table::new(1, ["kind", "requests", "bytes", "waited"]);
    for (kind, (count, all, waited)) in kinds {
        table.row([kind.to_owned(), count.to_string(), whole_bytes(all), seconds(waited)]);
    }
    table
}

fn gaps(parts: &[Part], requests: &[&Logged], lines: &[Line]) -> Table {
    let mut gaps: Vec<&Part> = parts.iter().filter(|part| part.under_way == 0).collect();
    gaps.sort_by(|a, b| b.len().total_cmp(&a.len()));
    let mut table = Table::new(1, ["from", "length", "CPU in it", "after", "before"]);
    for gap in gaps.into_iter().take(GAPS) {
        let before = requests.iter().filter(|request| request.end <= gap.from);
        let before = before.max_by(|a, b| a.end.total_cmp(&b.end));
        let after = requests.iter().filter(|request| request.begin >= gap.to);
        let after = after.min_by(|a, b| a.begin.total_cmp(&b.begin));
        table.row([
            format!("{:.3} s", gap.from),
            seconds(gap.len()),
            seconds(cpu_in(gap, lines).0),
            before.map_or_else(|| "the call of PullImage".to_owned(), |request| named(request)),
            after.map_or_else(|| "ready".to_owned(), |request| named(request)),
        ]);
    }
    table
}

/// `blob_range sha256:0123abcd bytes=0-99`.
fn named(request: &Logged) -> String {
    const DIGEST: usize = "sha256:01234567".len();
    let blob = request.blob.as_deref().map(|blob| format!(" {}", blob.get(..DIGEST).unwrap_or(blob)));
    let range = request.range.as_deref().map(|range| format!(" {range}"));
    format!("{}{}{}", request.kind, blob.unwrap_or_default(), range.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(begin: f64, end: f64, kind: &str) -> Logged {
        Logged {
            begin,
            first: Some(begin + 0.1),
            end,
            kind: kind.to_owned(),
            blob: Some("sha256:0123456789".to_owned()),
            range: None,
            bytes: 1_000,
        }
    }

    fn sample() -> Vec<Line> {
        vec![
            Line::Request(request(1.0, 3.0, "manifest")),
            Line::Request(request(2.0, 4.0, "blob")),
            // One after the program was ready, and one that goes on until then.
            Line::Request(request(11.0, 12.0, "blob")),
            Line::Request(request(8.0, 20.0, "blob")),
            Line::Cores { from: 0.0, to: 2.0, busy: 0.2 },
            Line::Cores { from: 2.0, to: 10.0, busy: 12.0 },
            Line::Start { name: "python lan".to_owned(), cores: 2, pulled: 4.0, ready: 10.0 },
        ]
    }

    #[test]
    fn time_is_parted_by_how_many_requests_are_under_way() {
        let lines = sample();
        let requests = [request(1.0, 3.0, "a"), request(2.0, 4.0, "b"), request(8.0, 20.0, "c")];
        let parts = parts(&requests.iter().collect::<Vec<_>>(), 10.0);
        let want =
            [(0.0, 1.0, 0), (1.0, 2.0, 1), (2.0, 3.0, 2), (3.0, 4.0, 1), (4.0, 8.0, 0), (8.0, 10.0, 1)];
        assert_eq!(parts, want.map(|(from, to, under_way)| Part { from, to, under_way }));
        let (cpu, busy) = cpu_in(&parts[4], &lines);
        assert!((cpu - 6.0).abs() < 1e-9 && (busy - 4.0).abs() < 1e-9, "{cpu} {busy}");
    }

    #[test]
    fn an_account_reads_like_this() {
        let text = account(&sample()).unwrap();
        let want = "\
python lan: pulled 4.00 s, ready 10.0 s, 3 requests

requests under way    time  of all  of it with a core busy  cores busy on average  with no core busy
0                   5.00 s    50 %                  4.00 s               1.2 of 2             1.00 s
1                   4.00 s    40 %                  3.00 s               1.1 of 2             1.00 s
2                   1.00 s    10 %                  1.00 s               1.5 of 2                0 s
3 or more              0 s     0 %                     0 s               0.0 of 2                0 s

By kind, until ready (waited: from each request's arrival to its first byte, added up):

kind      requests    bytes  waited
blob             2  2.00 kB  0.20 s
manifest         1  1.00 kB  0.10 s

The longest times without a request:

from     length  CPU in it                  after                    before
4.000 s  4.00 s     6.00 s   blob sha256:01234567      blob sha256:01234567
0.000 s  1.00 s     0.10 s  the call of PullImage  manifest sha256:01234567
";
        assert_eq!(text, want, "\n{text}");
        assert!(account(&sample()[..6]).is_err());
    }
}
