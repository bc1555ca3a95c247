//! Compares what was seen with what is written down, and says which figure changed and by how much.

/// A figure as it is today: a number of something that costs, so fewer is better.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// What is counted.
    pub what: &'static str,
    /// How many there are today.
    pub today: u64,
}

/// A figure that isn't the same each time; its line in `values` says why.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// What is counted.
    pub what: &'static str,
    /// The fewest there can be today.
    pub least: u64,
    /// The most that are seen today.
    pub most: u64,
}

/// What was seen of some figures. Panics when it is dropped with one that changed: all of them are in the message.
#[derive(Debug, Default)]
pub struct Sheet {
    changed: Vec<String>,
}

impl Sheet {
    /// `seen` was counted for `figure`.
    pub fn see(&mut self, figure: &Figure, seen: u64) {
        self.see_that(figure.what, figure.today, seen);
    }

    /// `seen` was counted for `bounds`.
    pub fn see_within(&mut self, bounds: &Bounds, seen: u64) {
        let nearest = seen.clamp(bounds.least, bounds.most);
        self.see_that(&format!("{} (from {} to {})", bounds.what, bounds.least, bounds.most), nearest, seen);
    }

    /// `seen` was counted of `what`, of which `today` are written down.
    pub fn see_that(&mut self, what: &str, today: u64, seen: u64) {
        self.changed.extend(change(what, today, seen));
    }

    /// Something that isn't a number is otherwise than written down.
    pub fn otherwise(&mut self, what: String) {
        self.changed.push(what);
    }
}

impl Drop for Sheet {
    fn drop(&mut self) {
        // A second panic would hide the first.
        if !std::thread::panicking() {
            assert!(self.changed.is_empty(), "figures changed:\n{}", self.changed.join("\n"));
        }
    }
}

/// The sentence for a figure that changed.
fn change(what: &str, today: u64, seen: u64) -> Option<String> {
    let by = seen.abs_diff(today);
    let how = match seen.cmp(&today) {
        std::cmp::Ordering::Equal => return None,
        std::cmp::Ordering::Greater => format!("+{by}, worse"),
        std::cmp::Ordering::Less => format!("-{by}, better: lower what values.rs says"),
    };
    Some(format!("{what}: {today} written down, {seen} seen ({how})"))
}

#[test]
fn a_change_is_told_with_its_size_and_its_direction() {
    assert_eq!(change("requests", 70, 70), None);
    assert_eq!(change("requests", 70, 72).as_deref(), Some("requests: 70 written down, 72 seen (+2, worse)"));
    let better = "requests: 70 written down, 3 seen (-67, better: lower what values.rs says)";
    assert_eq!(change("requests", 70, 3).as_deref(), Some(better));
}

#[test]
#[should_panic(
    expected = "figures changed:\none: 1 written down, 2 seen (+1, worse)\nother\nthree (from 3 to 5): 5 written down, 7 seen (+2, worse)"
)]
fn all_that_changed_is_in_one_message() {
    let mut sheet = Sheet::default();
    sheet.see(&Figure { what: "one", today: 1 }, 2);
    sheet.see(&Figure { what: "two", today: 2 }, 2);
    let bounds = Bounds { what: "three", least: 3, most: 5 };
    [3, 5].into_iter().for_each(|seen| sheet.see_within(&bounds, seen));
    sheet.otherwise("other".to_owned());
    sheet.see_within(&bounds, 7);
}
