//! Encrypted archives and the program age.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::export::Scene;
use crate::common::output;

#[test]
fn the_program_age_reads_what_is_exported_and_the_other_way_round() {
    let scene = Scene::new();
    let path = |name: &str| scene.place.path(name).to_str().unwrap().to_owned();
    let key = path("age-key.txt");
    let run =
        |program: &str, args: &[&str]| output(Command::new(program).args(args)).expect_status(0);
    run("age-keygen", &["-o", &key]);
    let public = run("age-keygen", &["-y", &key]).stdout;
    fs::write(path("public.txt"), format!("# mine\n{public}")).unwrap();
    let (ended, bytes) = scene.export(&["frozen", "-R", &path("public.txt")]);
    ended.expect_status(0);
    fs::write(path("a.age"), bytes).unwrap();
    run(
        "age",
        &[
            "--decrypt",
            "-i",
            &key,
            "-o",
            &path("a.tar"),
            &path("a.age"),
        ],
    );
    assert!(fs::read(path("a.tar")).unwrap() == fs::read(&scene.archive).unwrap());

    run(
        "age",
        &[
            "-R",
            &path("public.txt"),
            "-o",
            &path("b.age"),
            &path("a.tar"),
        ],
    );
    let bytes = fs::read(path("b.age")).unwrap();
    let (ended, out) = scene.unpack(&bytes, Path::new(&key));
    ended.expect_status(0);
    assert!(out.join("frozen/compose.yaml").exists());
}
