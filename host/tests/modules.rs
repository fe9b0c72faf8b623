//! Modules of the host form a graph without cycles: the one that ARCHITECTURE.md shows, and no other.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on shall fail where it stands"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Which modules each module uses.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// What stands around the graph in ARCHITECTURE.md.
const BEGIN: &str = "```text modules\n";
const END: &str = "```\n";

/// The graph that the sources have. What only tests use does not count.
fn found() -> Graph {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut graph = Graph::new();
    let mut folders = vec![sources.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let below = path.strip_prefix(&sources).unwrap().with_extension("");
            let module = below.iter().next().unwrap().to_str().unwrap().to_owned();
            if path.extension().is_none_or(|ending| ending != "rs")
                || module == "lib"
                || module == "main"
            {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            let code = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            let used = graph.entry(module.clone()).or_default();
            for line in code {
                used.extend(
                    line.split("crate::")
                        .skip(1)
                        .map(first_word)
                        .filter(|used| *used != module),
                );
            }
        }
    }
    for used in graph.values_mut() {
        used.remove("");
    }
    graph
}

fn first_word(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_ascii_lowercase() || *c == '_')
        .collect()
}

/// The graph as it stands in ARCHITECTURE.md.
fn shown(graph: &Graph) -> String {
    let line = |(module, used): (&String, &BTreeSet<String>)| {
        let used: Vec<&str> = used.iter().map(String::as_str).collect();
        match used.is_empty() {
            true => format!("{module}\n"),
            false => format!("{module}: {}\n", used.join(" ")),
        }
    };
    graph.iter().map(line).collect()
}

/// The modules in a circle, if there is one.
fn circle(graph: &Graph) -> Vec<String> {
    let mut left = graph.clone();
    loop {
        let free: Vec<String> = left
            .iter()
            .filter(|(_, used)| used.iter().all(|used| !left.contains_key(used)))
            .map(|(module, _)| module.clone())
            .collect();
        if free.is_empty() {
            return left.into_keys().collect();
        }
        left.retain(|module, _| !free.contains(module));
    }
}

#[test]
fn modules_use_each_other_as_the_map_shows_and_in_no_circle() {
    let graph = found();
    assert_eq!(
        circle(&graph),
        Vec::<String>::new(),
        "these use each other in a circle, or what does"
    );
    let map = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ARCHITECTURE.md");
    let text = fs::read_to_string(&map).unwrap();
    let (head, rest) = text.split_once(BEGIN).unwrap();
    let (listed, tail) = rest.split_once(END).unwrap();
    if std::env::var_os("UPDATE_ARCHITECTURE").is_some() {
        fs::write(map, format!("{head}{BEGIN}{}{END}{tail}", shown(&graph))).unwrap();
    } else {
        assert_eq!(
            listed,
            shown(&graph),
            "if the new import is meant, run this test with UPDATE_ARCHITECTURE=1"
        );
    }
}

#[test]
fn a_circle_is_found() {
    let graph = |edges: &[(&str, &str)]| {
        let mut graph = Graph::new();
        for (from, to) in edges {
            graph
                .entry((*from).to_owned())
                .or_default()
                .insert((*to).to_owned());
            graph.entry((*to).to_owned()).or_default();
        }
        graph
    };
    assert!(circle(&graph(&[("a", "b"), ("b", "c"), ("a", "c")])).is_empty());
    assert_eq!(
        circle(&graph(&[("a", "b"), ("b", "c"), ("c", "b")])),
        ["a", "b", "c"]
    );
}
