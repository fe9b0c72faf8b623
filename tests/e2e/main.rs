//! End-to-end tests: the real program, the fakes around it, and the real command lines where
//! they are there.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on shall fail where it stands"
)]

mod access;
mod bodies;
mod cache;
mod cli;
mod completions;
mod crowds;
mod dialect_bodies;
mod dialects;
mod doctor;
mod fake;
mod faults;
mod features;
mod functions;
mod generic;
mod guest_command;
mod guests;
mod input;
mod keys;
mod leaving;
mod ledger;
mod meanings;
mod messages;
mod plan;
mod pool;
mod real;
mod real_pool;
mod real_reuse;
mod released;
mod restart;
mod reuse;
mod swaps;
mod traces;
mod transcripts;
mod transforms;
mod upgrade;
mod warnings;
mod wire;

#[test]
fn every_file_here_is_in_the_module_list() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let module = format!("mod {};", name.trim_end_matches(".rs"));
        assert!(
            name == "main.rs" || include_str!("main.rs").contains(&module),
            "{name} is in no module list"
        );
    }
}
