//! Where benchmarks go: start-up, file system, index, and the criterion ones beside what a user would otherwise call. There are
//! none yet; `./dev demo` is the one measurement so far.
