#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a failed test")]

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use super::super::{Content, build};
use super::*;

const TOKEN: &str = "fake-canary-token";

fn resource(template: &[(&str, &str)]) -> VerteilToken {
    let template: BTreeMap<&str, &str> = template.iter().copied().collect();
    serde_json::from_value(json!({
        "apiVersion": "verteil.dev/v1alpha1", "kind": "VerteilToken",
        "metadata": {"name": "flight", "namespace": "search"},
        "spec": {
            "tokenURL": "https://api.stage.verteil.com/oauth2/token",
            "credentialsSecretRef": {"name": "credentials"}, "secret": {"template": template},
        },
    }))
    .unwrap()
}

fn record_of(token: &str, token_type: &str) -> Record {
    let at = |second| Timestamp::from_second(second).unwrap();
    Record::new(token.to_owned().into(), token_type.into(), 43199, at(1_800_000_000), at(1_800_000_001)).unwrap()
}

fn rendered(text: &str) -> String {
    let rendered = render_templates(&resource(&[("KEY", text)]), &record_of(TOKEN, "Bearer"));
    assert_eq!(rendered.failed, None, "{text}");
    String::from_utf8(rendered.keys["KEY"].0.clone()).unwrap()
}

/// What the check says, without the part that names the key.
fn refusal(text: &str) -> String {
    let error = check_templates(&resource(&[("KEY", text)])).expect_err(text).to_string();
    error.strip_prefix("spec.secret.template, key KEY, ").unwrap().to_owned()
}

#[test]
fn every_name_has_the_value_of_the_record() {
    for (text, value) in [
        ("Bearer {{ access_token }}", "Bearer fake-canary-token"),
        ("{{ token_type }}", "Bearer"),
        ("{{ expires_in }} {{ token_expiry }} {{ saved_at }}", "43199 1800043199 1800000001"),
        ("{{ issued_at }} {{ expires_at }}", "2027-01-15T08:00:00Z 2027-01-15T19:59:59Z"),
        ("{{ namespace }}/{{ name }}", "search/flight"),
        (
            "TOKEN={{ access_token }}\nEXPIRES={{ expires_at }}\n",
            "TOKEN=fake-canary-token\nEXPIRES=2027-01-15T19:59:59Z\n",
        ),
        ("{{ expires_in // 60 }}{% if token_type == 'Bearer' %}!{% endif %}", "719!"),
        ("<{{ '<&>' }}>", "<<&>>"),
        ("", ""),
    ] {
        assert_eq!(rendered(text), value);
        assert_eq!(check_templates(&resource(&[("KEY", text)])), Ok(()), "{text}");
    }
}

#[test]
fn every_filter_does_what_it_is_called() {
    for (text, value) in [
        ("{{ token_type | upper }} {{ token_type | lower }}", "BEARER bearer"),
        ("{{ 'user:pass' | b64encode }}", "dXNlcjpwYXNz"),
        (r#"{{ 'a"b\\<é' | tojson }} {{ expires_in | tojson }}"#, r#""a\"b\\<é" 43199"#),
    ] {
        assert_eq!(rendered(text), value);
    }
}

#[test]
fn mistakes_are_refused_with_their_place() {
    let names = "there are access_token, token_type, expires_in, token_expiry, saved_at, issued_at, expires_at, name, namespace";
    for (text, message) in [
        ("{{ access_token", "line 1, column 4: syntax error: unexpected end of input, expected end of variable block"),
        ("a\nb {{ access_token }", "line 2, column 19: syntax error: unexpected `}`, expected end of variable block"),
        ("{% if name %}", "line 1, column 12: syntax error: unexpected end of input, expected end of block"),
        ("{% include 'other' %}", "line 1, column 4: syntax error: unknown statement include"),
        ("{% macro m() %}{% endmacro %}", "line 1, column 4: syntax error: unknown statement macro"),
        ("ü\n é {{ token }}", &format!("line 2, column 7: token is unknown: {names}")),
        // In a branch that is not taken, and after the same word as text, as a string and as an attribute.
        (
            "nope {{ 'nope' }}{% if not name %}{{ name.nope ~ nope }}{% endif %}",
            &format!("line 1, column 50: nope is unknown: {names}"),
        ),
        ("{% for i in range(9) %}{% endfor %}", &format!("line 1, column 13: range is unknown: {names}")),
        ("{{ debug() }}", &format!("line 1, column 4: debug is unknown: {names}")),
        (
            "a\n{{ name | nope }}",
            "line 2, column 11: filter nope is unknown: there are b64encode, lower, tojson and upper",
        ),
        ("{{ name is nope }}", "line 1, column 12: test nope is unknown"),
        ("{{ access_token.foo }}", "line 1, column 4: undefined value"),
        ("{{ access_token.foo | tojson }}", "line 1, column 23: tojson takes a string or a whole number"),
        ("{{ access_token.split('.') }}", "line 1, column 16: string has no method named split"),
        ("{{ 1 // (expires_in - 43199) }}", "line 1, column 4: unable to calculate 1 // 0"),
        ("{{ 'x' * 1000000000 }}", "line 1, column 4: it takes too much time or memory"),
        ("{{ 'x' * 70000 }}", "it renders to more than 64 KiB"),
    ] {
        assert_eq!(refusal(text), message, "{text}");
    }
    assert_eq!(refusal(&"ü".repeat(4097)), "a template has at most 4096 characters");
    assert_eq!(check_templates(&resource(&[("KEY", &"ü".repeat(4096))])), Ok(()));
}

#[test]
fn loops_end() {
    let nested = "{% for a in access_token %}".repeat(9) + "x" + &"{% endfor %}".repeat(9);
    assert_eq!(refusal(&nested).split(": ").last(), Some("it takes too much time or memory"));
}

#[test]
fn one_bad_template_does_not_keep_the_others_from_being_rendered() {
    let resource = resource(&[("A", "{{ a }}"), ("B", "{{ name }}"), ("C", "{{ c")]);
    let rendered = render_templates(&resource, &record_of(TOKEN, "Bearer"));
    assert_eq!(rendered.keys.keys().collect::<Vec<_>>(), ["B"]);
    assert!(rendered.failed.unwrap().to_string().starts_with("spec.secret.template, key A, line 1"));
    assert_eq!(template_keys(&resource).collect::<Vec<_>>(), ["A", "B", "C"]);
}

#[test]
fn no_template_takes_the_place_of_the_record() {
    let record = record_of(TOKEN, "Bearer");
    let keys = record.keys().map(|(key, _)| (key, "{{ name }}"));
    let content = Content { record_seal: "r".into(), input_seal: None, renewed: None, record: record.clone() };
    let data = build(&resource(&keys), None, &content).data.unwrap();
    assert!(record.keys().into_iter().all(|(key, value)| data[key].0 == value));
}

#[test]
fn all_templates_together_leave_room_for_the_token() {
    let keys: Vec<String> = (0..16).map(|n| format!("KEY{n:02}")).collect();
    let templates: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "{{ 'x' * 60000 }}")).collect();
    let rendered = render_templates(&resource(&templates), &record_of(TOKEN, "Bearer"));
    assert_eq!(rendered.keys.len(), 4);
    assert_eq!(
        rendered.failed.unwrap().to_string(),
        "spec.secret.template, key KEY04, all templates together render to more than 256 KiB"
    );
}

#[test]
fn what_only_a_tokens_values_show_is_told_without_them() {
    for text in [
        "{% if token_type != 'Bearer' %}{{ access_token.secret }}{% endif %}",
        "{% if token_type != 'Bearer' %}{{ access_token - token_type }}{% endif %}",
        "{% if token_type != 'Bearer' %}{{ access_token[access_token] }}{% endif %}",
        "{% if token_type != 'Bearer' %}{% for a, b in [access_token] %}{% endfor %}{% endif %}",
        "{% if token_type != 'Bearer' %}{{ access_token() }}{% endif %}",
        "{% if token_type != 'Bearer' %}{{ token_expiry // 0 }}{% endif %}",
        "{% if token_type != 'Bearer' %}{{ [access_token] | tojson }}{% endif %}",
        "{% if token_type != 'Bearer' %}{{ {access_token: 1}.x }}{% endif %}",
    ] {
        let resource = resource(&[("KEY", text)]);
        assert_eq!(check_templates(&resource), Ok(()), "{text}");
        let failed = render_templates(&resource, &record_of(TOKEN, "mac")).failed.expect(text);
        let told = format!("{failed} {failed:?}");
        assert!(told.contains("line 1") && !told.contains(TOKEN) && !told.contains("1800043199"), "{told}");
    }
}

/// An expression nests by a level for each of these, and recursion over it must not overflow the stack.
#[test]
fn no_text_overflows_the_stack() {
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("{1:", "}"),
        ("not ", ""),
        ("-", ""),
        ("1+", ""),
        ("1~", ""),
        ("1**", ""),
        ("1<", ""),
        ("1 and ", ""),
        ("1 if 1 else ", ""),
        ("", ".a"),
        ("", "[0]"),
        ("", "|a"),
        ("", "()"),
        ("", " is a"),
        ("", "[1:]"),
    ] {
        let times = (LONGEST_TEXT - 5) / (open.len() + close.len());
        let text = format!("{{{{{}1{}}}}}", open.repeat(times), close.repeat(times));
        drop(check_templates(&resource(&[("KEY", &text)])));
        drop(render_templates(&resource(&[("KEY", &text)]), &record_of(TOKEN, "Bearer")));
    }
    for (open, close) in [
        ("{%if 1%}", "{%endif%}"),
        ("{%for a in 'a'%}", "{%endfor%}"),
        ("{%set a%}", "{%endset%}"),
        ("{%with%}", "{%endwith%}"),
        ("{%filter upper%}", "{%endfilter%}"),
        ("{%if 0%}{%elif 0%}", "{%endif%}"),
    ] {
        let times = LONGEST_TEXT / (open.len() + close.len());
        let text = open.repeat(times) + &close.repeat(times);
        drop(check_templates(&resource(&[("KEY", &text)])));
    }
    let elif = format!("{{%if 0%}}{}{{%endif%}}", "{%elif 0%}".repeat(400));
    assert_eq!(check_templates(&resource(&[("KEY", &elif)])), Ok(()));
}

/// Texts of the language's own pieces get further than random ones.
fn any_template() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        proptest::sample::select(vec![
            "{{",
            "}}",
            "{%",
            "%}",
            "{#",
            "#}",
            "{{-",
            "-}}",
            "if ",
            "else",
            "elif ",
            "endif",
            "for ",
            " in ",
            "endfor",
            "set ",
            "endset",
            "with ",
            "endwith",
            "raw",
            "endraw",
            "filter ",
            "endfilter",
            "do ",
            "autoescape ",
            "access_token",
            "expires_in",
            "name",
            "loop",
            "self",
            "nope",
            "|upper",
            "|tojson",
            "|b64encode",
            "|nope",
            "(",
            ")",
            "[",
            "]",
            "{",
            "}",
            ":",
            ",",
            ".",
            "~",
            "+",
            "-",
            "*",
            "**",
            "//",
            "%",
            "==",
            "<",
            " and ",
            " not ",
            " is ",
            "=",
            "'",
            "\"",
            "'x'",
            "0",
            "7",
            "999999999999",
            "1e300",
            "true",
            "none",
            " ",
            "\n",
            "\\",
            "ü",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,8}",
    ];
    proptest::collection::vec(piece, 0..120).prop_map(|pieces| pieces.concat().chars().take(LONGEST_TEXT).collect())
}

fn any_expression() -> impl Strategy<Value = String> {
    let leaf = proptest::sample::select(vec![
        "access_token",
        "expires_in",
        "name",
        "0",
        "7",
        "-1",
        "99999999999",
        "0.5",
        "'x'",
        "none",
        "true",
        "nope",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(5, 24, 3, |inner| {
        prop_oneof![
            (
                inner.clone(),
                proptest::sample::select(vec!["+", "-", "*", "**", "//", "/", "%", "~", "==", "<", " in ", " and "]),
                inner.clone()
            )
                .prop_map(|(a, op, b)| format!("({a}{op}{b})")),
            (inner.clone(), proptest::sample::select(vec!["upper", "lower", "tojson", "b64encode", "nope"]))
                .prop_map(|(a, filter)| format!("({a}|{filter})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}[{b}:]")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} if {b} else {c})")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("[{a}, {b}]")),
        ]
    })
    .prop_map(|expression| format!("{{% for i in {expression} %}}{{{{ i }}}}{{% endfor %}}{{{{ {expression} }}}}"))
}

proptest! {
    #[test]
    fn any_text_is_rendered_within_bounds_or_refused(
        text in prop_oneof![any_template(), any_expression()],
        token in "[!-~]{17,3000}",
    ) {
        let resource = resource(&[("KEY", &text)]);
        let checked = check_templates(&resource);
        let rendered = render_templates(&resource, &record_of(&token, "Bearer"));
        let told = format!("{checked:?} {:?}", rendered.failed);
        prop_assert!(!told.contains("the template engine failed"), "{}", told);
        prop_assert!(text.contains(&token) || !told.contains(&token), "{}", told);
        prop_assert!(rendered.keys.values().all(|value| value.0.len() <= LONGEST_VALUE));
        prop_assert_eq!(rendered.keys.len() + usize::from(rendered.failed.is_some()), 1);
    }
}
