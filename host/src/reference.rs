//! For tests: compares tables of `docs/reference/` with what the code says.

use std::fs;
use std::path::Path;

/// Compares the table between the two comments of a page with `table`. With `UPDATE_DOCS` set, writes it there.
pub(crate) fn compare(page: &str, begin: &str, end: &str, table: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference");
    let path = folder.join(page);
    let text = fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once(begin).unwrap();
    let (found, tail) = rest.split_once(end).unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path, format!("{head}{begin}{table}{end}{tail}")).unwrap();
    } else {
        assert_eq!(found, table, "run this test with UPDATE_DOCS=1");
    }
}
