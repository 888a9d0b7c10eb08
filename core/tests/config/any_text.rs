//! Whatever a file holds, it is answered: no panic, no secret.

use proptest::prelude::*;
use tidegate_core::config::{Environment, Files, Look, load};

use crate::{catalog::catalog, golden::MARKER};

/// Pieces of configurations, whole and broken.
const PIECES: &[&str] = &[
    "[pipeline]\n",
    "name = \"x\"\n",
    "[source.tide]\n",
    "[[source.tide]]\n",
    "[sink.shelf]\n",
    "[sink.depot]\n",
    "[spool]\n",
    "[defaults.source]\n",
    "api_key = \"hunter2\"\n",
    "url = \"depot://me:hunter2@host/x\"\n",
    "password = 'hunter2'\n",
    "token = \"a${SECRET}b${UNSET:-hunter2}\"\n",
    "instruments = [\"${SECRET}\", 1, { sea = \"ä\", topp = 2 }]\n",
    "top = \"${SECRET}\"\n",
    "channels = [\"trades\", \"日本\"]\n",
    "batch = { rows = 0, lingr = 1 }\n",
    "tables = { trades = \"{x}\", moon = {} }\n",
    "max_bytes = 3\n",
    "\"\"\"",
    "'''",
    "\"",
    "${",
    "}",
    "[",
    "]",
    "=",
    "\n",
    "\r\n",
    "\u{feff}",
    "# hash 🌊\n",
    "a.b.c = { d = [[[ 1 ]]] }\n",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_answered_without_a_panic_and_without_a_secret(
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..14),
    ) {
        let text = pieces.concat();
        let environment = Environment::new([("SECRET", MARKER)]);
        let loaded = load(&catalog(), Files::of_text("x.toml", &text), &environment);
        prop_assert_eq!(loaded.pipelines.len() + loaded.refused.len(), 1);
        prop_assert_eq!(loaded.pipelines.is_empty(), loaded.report.errors() > 0);
        for colours in [false, true] {
            let said = loaded.report.render(Look { colours, width: 80 });
            prop_assert!(!said.contains(MARKER), "{text}\n{said}");
        }
        let debugged = format!("{:?}", loaded.pipelines);
        prop_assert!(!debugged.contains(MARKER));
    }
}
