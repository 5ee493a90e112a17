use super::*;

fn error(json: &str) -> String {
    format!("{:#}", Config::parse(json.as_bytes()).unwrap_err())
}

#[test]
fn an_empty_object_means_the_defaults() {
    let config = Config::parse(b"{}").unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.base_dir, Path::new("/opt/stacks"));
    assert_eq!(config.backup_dir, Path::new("/var/backups/docker"));
    assert_eq!(
        config.log_file.unwrap(),
        Path::new("/var/log/docker-backup.log")
    );
}

#[test]
fn stacks_are_names_or_objects_and_keep_their_order() {
    let json = br#"{"stacks": ["web", {"path": "/srv/immich", "exclude": ["cache/"]}, "db"]}"#;
    let Stacks::Listed(stacks) = Config::parse(json).unwrap().stacks else {
        panic!("they are listed");
    };
    assert_eq!(stacks[0].0.name.as_deref(), Some("web"));
    assert_eq!(stacks[1].0.path.as_deref(), Some(Path::new("/srv/immich")));
    assert_eq!(stacks[2].0.name.as_deref(), Some("db"));
}

#[test]
fn an_unknown_field_is_refused_with_its_path_and_a_suggestion() {
    let message = error(r#"{"retention": {"keepDay": 3}}"#);
    assert!(
        message.starts_with("`retention.keepDay`: unknown field `keepDay`"),
        "{message}"
    );
    assert!(message.ends_with("did you mean `keepDays`?"), "{message}");

    let message = error(r#"{"stacks": ["a", {"name": "b", "stop_timeout": 3}]}"#);
    assert!(message.starts_with("`stacks[1].stop_timeout`"), "{message}");
    assert!(
        message.ends_with("did you mean `stopTimeout`?"),
        "{message}"
    );

    let message = error(r#"{"backup_dir": "/x"}"#);
    assert!(message.ends_with("did you mean `backupDir`?"), "{message}");
    let message = error(r#"{"zebra": 1}"#);
    assert!(!message.contains("did you mean"), "{message}");
}

#[test]
fn an_array_in_place_of_an_object_is_refused() {
    for (array, object) in [
        (r#"[["web"], "/opt"]"#, r#"{"stacks": ["web"]}"#),
        ("null", "{}"),
        (
            r#"{"retention": [28]}"#,
            r#"{"retention": {"keepDays": 28}}"#,
        ),
        (
            r#"{"email": ["h", 25, "none", null, null, null, null, "a@b", ["c@d"]]}"#,
            r#"{"email": {"host": "h", "from": "a@b", "to": ["c@d"]}}"#,
        ),
        (r#"{"defaults": ["web"]}"#, r#"{"defaults": {}}"#),
    ] {
        let message = error(array);
        assert!(message.contains("expected "), "{message}");
        assert!(message.contains("an object"), "{message}");
        // The control: an object is accepted.
        Config::parse(object.as_bytes()).unwrap();
    }
    let config = Config::parse(br#"{"retention": null, "email": null}"#).unwrap();
    assert_eq!((config.retention, config.email), (None, None));
}

#[test]
fn a_wrong_value_is_refused_with_its_path() {
    let message = error(r#"{"stacks": [{"name": "a", "stopMethod": "kill"}]}"#);
    assert!(
        message.starts_with("`stacks[0].stopMethod`: unknown variant `kill`"),
        "{message}"
    );
    for (json, expected) in [
        (
            r#"{"email": {"host": "h", "from": "a@b", "to": "c@d"}}"#,
            r#"`email.to`: invalid type: string "c@d", expected an array, ["..."]"#,
        ),
        (
            r#"{"email": {"host": "h", "port": 99999}}"#,
            "`email.port`: invalid value: integer `99999`, expected a whole number up to 65535",
        ),
        (
            r#"{"retention": {"keepDays": "28"}}"#,
            r#"`retention.keepDays`: invalid type: string "28", expected a whole number, 0 or more"#,
        ),
        (
            r#"{"retention": 28}"#,
            r#"`retention`: invalid type: integer `28`, expected an object such as {"keepDays": 28}, or null"#,
        ),
        (
            r#"{"stacks": [["web"]]}"#,
            "`stacks[0]`: invalid type: array, expected a stack's name or an object",
        ),
        (
            r#"{"backupDir": ["/b"]}"#,
            "`backupDir`: invalid type: array, expected a string",
        ),
    ] {
        let message = error(json);
        assert!(message.starts_with(expected), "{message}");
    }
    let message = error(r#"{"stacks": [7]}"#);
    assert!(message.contains("a stack's name or an object"), "{message}");
    assert!(error("{").contains("EOF"), "{}", error("{"));
    assert!(error("{} x").contains("trailing"), "{}", error("{} x"));
}
