# shellcheck shell=bash
# `./dev clean`: deletes the cache folder. Build output is cargo's (cargo clean).

clean() {
    say "deleting $SPANDREL_CACHE"
    [ -z "$(mounts_below "$SPANDREL_CACHE")" ] || die "something is mounted below $SPANDREL_CACHE: a demo is running?"
    rm -rf --one-file-system "$SPANDREL_CACHE"
}
