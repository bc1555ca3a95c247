# shellcheck shell=bash
# `./dev man`: the tool's man pages, as packages have them.
source scripts/install.sh

man() {
    local dir=${1:-target/man}
    need_rust
    cargo run --quiet -p spandrel-cli --bin spandrel -- man "$dir"
    say "the man pages are in $dir; to read one: man -l $dir/spandrel.1"
}
