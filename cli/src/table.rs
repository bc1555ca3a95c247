//! Tables as Go's `text/tabwriter` lays them out with soci's settings: at least 8 wide, 4 spaces between columns and behind
//! the last, so that scripts that cut columns go on working.

/// Narrowest column, in characters.
const MIN_WIDTH: usize = 8;
/// Spaces behind the widest cell.
const PADDING: usize = 4;

/// The rows below their header, each line with its newline.
pub fn render<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = header.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let widths = widths.map(|width| (width + PADDING).max(MIN_WIDTH));
    let mut out = String::new();
    let lines = std::iter::once(header.map(str::to_owned)).chain(rows.iter().cloned());
    for line in lines {
        for (cell, width) in line.iter().zip(widths) {
            out.push_str(cell);
            out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soci_s_own_tables() {
        let header = ["DIGEST", "SIZE", "LAYER DIGEST"];
        assert_eq!(render(header, &[]), "DIGEST    SIZE    LAYER DIGEST    \n");
        let digest = |digit: char| format!("sha256:{}", digit.to_string().repeat(64));
        let rows =
            [[digest('0'), "35424".to_owned(), digest('1')], [digest('2'), "8168".to_owned(), digest('6')]];
        let want = format!(
            "DIGEST{:69}SIZE     LAYER DIGEST{:63}\n{}    35424    {}    \n{}    8168     {}    \n",
            "", "", rows[0][0], rows[0][2], rows[1][0], rows[1][2]
        );
        assert_eq!(render(header, &rows), want);
        assert_eq!(
            render(["A", "B"], &[["é".to_owned(), "x".to_owned()]]),
            "A       B       \né       x       \n"
        );
    }
}
