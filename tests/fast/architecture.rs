//! The floors of `src/`: no circle between files, no import that runs upwards,
//! and no type name with two meanings.
//!
//! The floors are the block `floors` of `docs/architecture.md`, the top first.
//! Imports are read from the source: `use` declarations, paths in code and in
//! the arguments of macros. Re-exports are followed to the file that defines
//! the name. Method calls are ignored; the types that they belong to are found.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree, Visibility};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const CRATE: &str = "docker_stack_backup";

type ModulePath = Vec<String>;

/// A file of `src/`, without its tests.
#[derive(Default)]
struct Module {
    /// Relative to `src/`.
    file: String,
    /// Names that it defines.
    items: BTreeSet<String>,
    /// Types among them that other files can name.
    types: BTreeSet<String>,
    children: BTreeSet<String>,
    /// Names that it re-exports, and the paths that they stand for.
    reexports: BTreeMap<String, ModulePath>,
    /// Names that it imports, and the paths that they stand for.
    imports: BTreeMap<String, ModulePath>,
    /// Paths that it uses, as they are written.
    paths: Vec<Vec<String>>,
}

/// `from` uses `name`, which `to` defines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Arrow {
    from: String,
    to: String,
    name: String,
}

struct Crate {
    modules: BTreeMap<ModulePath, Module>,
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let tokens = match &attribute.meta {
            syn::Meta::List(list) => list.tokens.to_string(),
            _ => String::new(),
        };
        attribute.path().is_ident("cfg") && tokens == "test"
    })
}

impl Crate {
    /// Reads the crate; `read` returns a file's text by its path in `src/`.
    fn read(read: &dyn Fn(&str) -> Option<String>) -> Crate {
        let mut modules = BTreeMap::new();
        let mut todo = vec![(Vec::new(), "lib.rs".to_owned())];
        if read("main.rs").is_some() {
            todo.push((words(&["main"]), "main.rs".to_owned()));
        }
        while let Some((path, file)) = todo.pop() {
            let text = read(&file).unwrap_or_else(|| panic!("{file} is missing"));
            let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
            let mut module = Module {
                file,
                ..Module::default()
            };
            module.visit_file(&parsed);
            for child in &module.children {
                let child_path = [path.clone(), vec![child.clone()]].concat();
                let dir = child_path.join("/");
                let candidates = [format!("{dir}.rs"), format!("{dir}/mod.rs")];
                let found = candidates.into_iter().find(|file| read(file).is_some());
                todo.push((
                    child_path,
                    found.unwrap_or_else(|| panic!("mod {dir} has no file")),
                ));
            }
            modules.insert(path, module);
        }
        Crate { modules }
    }

    fn of_this_project() -> Crate {
        Crate::read(&|file| fs::read_to_string(Path::new(ROOT).join("src").join(file)).ok())
    }

    /// Converts a path as it is written in `module` to a path from the crate's
    /// root. Returns `None` for local names and those of other crates.
    fn absolute(&self, module: &[String], path: &[String]) -> Option<ModulePath> {
        let (first, rest) = path.split_first()?;
        let start: ModulePath = match first.as_str() {
            "crate" | CRATE => Vec::new(),
            "self" => module.to_vec(),
            "super" => module[..module.len() - 1].to_vec(),
            name => {
                let known = &self.modules[module];
                if let Some(import) = known.imports.get(name) {
                    return self.absolute(module, &[import.clone(), rest.to_vec()].concat());
                }
                if !known.children.contains(name) {
                    return None;
                }
                [module, &[name.to_owned()]].concat()
            }
        };
        match rest.split_first() {
            Some((next, rest)) if next == "super" => {
                let up = [&start[..start.len() - 1], rest].concat();
                Some(up)
            }
            _ => Some([start, rest.to_vec()].concat()),
        }
    }

    /// Returns the file that defines the item at this path, and the item's name.
    /// Returns `None` for a module.
    fn definition(&self, path: &[String]) -> Option<(&str, String)> {
        let mut at = 0;
        let mut here: ModulePath = Vec::new();
        while let Some(name) = path.get(at) {
            let module = &self.modules[&here];
            if module.children.contains(name) {
                here.push(name.clone());
            } else if let Some(origin) = module.reexports.get(name) {
                let origin = self.absolute(&here, origin)?;
                return self.definition(&[origin, path[at + 1..].to_vec()].concat());
            } else if module.items.contains(name) {
                return Some((&module.file, name.clone()));
            } else {
                return None;
            }
            at += 1;
        }
        None
    }

    fn arrows(&self) -> BTreeSet<Arrow> {
        let mut arrows = BTreeSet::new();
        for (path, module) in &self.modules {
            let used = module.paths.iter().chain(module.imports.values());
            for used in used {
                let absolute = self.absolute(path, used);
                let definition = absolute.and_then(|absolute| self.definition(&absolute));
                if let Some((file, name)) = definition
                    && file != module.file
                {
                    arrows.insert(Arrow {
                        from: module.file.clone(),
                        to: file.to_owned(),
                        name,
                    });
                }
            }
        }
        arrows
    }
}

impl Module {
    fn define(&mut self, name: &syn::Ident, visibility: &Visibility, is_type: bool) {
        self.items.insert(name.to_string());
        if is_type && !matches!(visibility, Visibility::Inherited) {
            self.types.insert(name.to_string());
        }
    }

    fn import(&mut self, tree: &UseTree, prefix: &[String], is_public: bool) {
        match tree {
            UseTree::Path(path) => {
                let prefix = [prefix, &[path.ident.to_string()]].concat();
                self.import(&path.tree, &prefix, is_public);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, prefix, is_public);
                }
            }
            UseTree::Name(name) => self.bind(name.ident.to_string(), None, prefix, is_public),
            UseTree::Rename(name) => self.bind(
                name.ident.to_string(),
                Some(name.rename.to_string()),
                prefix,
                is_public,
            ),
            UseTree::Glob(_) => assert!(
                prefix[0] != "crate" && prefix[0] != "super" && prefix[0] != "self",
                "{}: a glob hides what is imported",
                self.file
            ),
        }
    }

    fn bind(&mut self, name: String, alias: Option<String>, prefix: &[String], is_public: bool) {
        let path = match name.as_str() {
            "self" => prefix.to_vec(),
            _ => [prefix, &[name]].concat(),
        };
        let alias = alias.unwrap_or_else(|| path.last().unwrap().clone());
        // Skips `use anyhow::Context as _`, and names that would stand for themselves.
        if alias == "_" || path[0] == alias {
            return;
        }
        if is_public {
            self.reexports.insert(alias, path);
        } else {
            self.imports.insert(alias, path);
        }
    }

    fn scan_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.paths.push(std::mem::take(&mut path));
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.paths.push(std::mem::take(&mut path));
                    self.scan_tokens(group.stream());
                    colons = 0;
                }
                _ => {
                    self.paths.push(std::mem::take(&mut path));
                    colons = 0;
                }
            }
        }
        self.paths.push(path);
    }
}

impl<'ast> Visit<'ast> for Module {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            Item::Const(item) => &item.attrs,
            Item::Static(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if is_test(attributes) {
            return;
        }
        match item {
            Item::Mod(item) if item.content.is_none() => {
                self.children.insert(item.ident.to_string());
            }
            Item::Use(item) => {
                let is_public = !matches!(item.vis, Visibility::Inherited);
                self.import(&item.tree, &[], is_public);
                return;
            }
            Item::Fn(item) => self.define(&item.sig.ident, &item.vis, false),
            Item::Const(item) => self.define(&item.ident, &item.vis, false),
            Item::Static(item) => self.define(&item.ident, &item.vis, false),
            Item::Struct(item) => self.define(&item.ident, &item.vis, true),
            Item::Enum(item) => self.define(&item.ident, &item.vis, true),
            Item::Trait(item) => self.define(&item.ident, &item.vis, true),
            Item::Type(item) => self.define(&item.ident, &item.vis, true),
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path.segments.iter().map(|part| part.ident.to_string());
        self.paths.push(names.collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.scan_tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }
}

/// Returns the groups of files that import each other, each as its arrows.
fn circles(arrows: &BTreeSet<Arrow>) -> Vec<Vec<Arrow>> {
    let mut reached: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for arrow in arrows {
        reached.entry(&arrow.from).or_default().insert(&arrow.to);
    }
    // Extends the sets until nothing more is reached. That is fast enough for about
    // a hundred files.
    loop {
        let mut grown = reached.clone();
        for next in grown.values_mut() {
            let further = next.iter().filter_map(|file| reached.get(file));
            let further: BTreeSet<&str> = further.flatten().copied().collect();
            next.extend(further);
        }
        if grown == reached {
            break;
        }
        reached = grown;
    }
    let is_reached = |from: &str, to: &str| reached.get(from).is_some_and(|all| all.contains(to));
    let mut circles: Vec<Vec<Arrow>> = Vec::new();
    for arrow in arrows
        .iter()
        .filter(|arrow| is_reached(&arrow.to, &arrow.from))
    {
        let known = circles.iter_mut().find(|circle| {
            is_reached(&circle[0].from, &arrow.from) && is_reached(&arrow.from, &circle[0].from)
        });
        match known {
            Some(circle) => circle.push(arrow.clone()),
            None => circles.push(vec![arrow.clone()]),
        }
    }
    circles
}

/// Returns the floors, the lowest first; each has the names of its wings.
fn floors(document: &str) -> Vec<Vec<String>> {
    let block = document
        .split("```floors\n")
        .nth(1)
        .expect("a block `floors`");
    let block = block.split("```").next().unwrap();
    let mut floors: Vec<Vec<String>> = block
        .lines()
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .collect();
    floors.reverse();
    floors
}

fn wing(file: &str) -> &str {
    let first = file.split('/').next().unwrap();
    first.strip_suffix(".rs").unwrap_or(first)
}

/// Returns the arrows between wings that do not run downwards. Every wing must
/// have a floor.
fn upward<'a>(arrows: &'a BTreeSet<Arrow>, floors: &[Vec<String>]) -> Vec<&'a Arrow> {
    let floor = |file: &str| {
        let wing = wing(file).to_owned();
        let found = floors.iter().position(|floor| floor.contains(&wing));
        found.unwrap_or_else(|| panic!("{wing} has no floor in docs/architecture.md"))
    };
    let is_upward = |arrow: &&Arrow| {
        wing(&arrow.from) != wing(&arrow.to) && floor(&arrow.from) <= floor(&arrow.to)
    };
    arrows.iter().filter(is_upward).collect()
}

fn document() -> String {
    fs::read_to_string(Path::new(ROOT).join("docs/architecture.md")).unwrap()
}

#[test]
fn no_two_files_import_each_other() {
    let circles = circles(&Crate::of_this_project().arrows());
    assert!(
        circles.is_empty(),
        "{} circles: {circles:#?}",
        circles.len()
    );
}

#[test]
fn no_import_runs_upwards() {
    let arrows = Crate::of_this_project().arrows();
    let upward = upward(&arrows, &floors(&document()));
    assert!(upward.is_empty(), "{upward:#?}");
}

#[test]
fn every_floor_holds_wings_that_exist() {
    let crate_ = Crate::of_this_project();
    let wings: BTreeSet<&str> = crate_
        .modules
        .values()
        .map(|module| wing(&module.file))
        .collect();
    for name in floors(&document()).iter().flatten() {
        assert!(wings.contains(name.as_str()), "there is no wing {name}");
    }
}

#[test]
fn a_type_name_is_defined_once() {
    let crate_ = Crate::of_this_project();
    let mut files: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for module in crate_.modules.values() {
        for name in &module.types {
            files.entry(name).or_default().push(&module.file);
        }
    }
    files.retain(|_, files| files.len() > 1);
    assert!(files.is_empty(), "{} names: {files:#?}", files.len());
}

fn planted(files: &[(&str, &str)]) -> Crate {
    let files: BTreeMap<&str, &str> = files.iter().copied().collect();
    Crate::read(&|file| files.get(file).map(|text| (*text).to_owned()))
}

fn arrow(from: &str, to: &str, name: &str) -> Arrow {
    Arrow {
        from: from.to_owned(),
        to: to.to_owned(),
        name: name.to_owned(),
    }
}

#[test]
fn a_planted_circle_is_found() {
    let crate_ = planted(&[
        ("lib.rs", "pub mod a; pub mod b; pub mod c;"),
        (
            "a.rs",
            "use crate::b; pub struct A; fn f() { println!(\"{}\", b::g(1)); }",
        ),
        ("b/mod.rs", "mod inner; pub use inner::g;"),
        ("b/inner.rs", "use super::super::c::C; pub fn g(c: u32) {}"),
        (
            "c.rs",
            "pub struct C(crate::a::A); #[cfg(test)] mod tests { use crate::b::g; }",
        ),
    ]);
    let found = circles(&crate_.arrows());
    let expected = vec![
        arrow("a.rs", "b/inner.rs", "g"),
        arrow("b/inner.rs", "c.rs", "C"),
        arrow("c.rs", "a.rs", "A"),
    ];
    assert_eq!(found, [expected]);
}

#[test]
fn a_child_that_uses_its_parent_is_a_circle_if_the_parent_uses_it() {
    let crate_ = planted(&[
        ("lib.rs", "mod a;"),
        ("a/mod.rs", "mod b; pub struct A; fn f() { b::g() }"),
        ("a/b.rs", "pub fn g() {} impl super::A {}"),
    ]);
    assert_eq!(circles(&crate_.arrows()).len(), 1);
    let crate_ = planted(&[
        ("lib.rs", "mod a;"),
        ("a/mod.rs", "mod b; pub use b::g; pub struct A;"),
        ("a/b.rs", "pub fn g() {} impl super::A {}"),
    ]);
    assert_eq!(circles(&crate_.arrows()).len(), 0);
}

#[test]
fn a_planted_upward_import_is_found() {
    let crate_ = planted(&[
        ("lib.rs", "mod high; mod low;"),
        ("high.rs", "use crate::low::L; pub struct H;"),
        (
            "low.rs",
            "pub struct L; fn f() -> crate::high::H { todo!() }",
        ),
    ]);
    let arrows = crate_.arrows();
    let floors = floors("```floors\nhigh\nlow\n```");
    assert_eq!(upward(&arrows, &floors), [&arrow("low.rs", "high.rs", "H")]);
}
