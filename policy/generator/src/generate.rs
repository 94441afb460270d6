//! Files → a policy for each pod in them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use policy_engine::{OfImage, document::Document};

use crate::{
    derive::{Choices, Derivation, containers, needs_users},
    images::{Image, ImageError, Images},
    inputs::{Inputs, Reading, Text, Workload},
    problem::{Problem, Problems, Severity},
};

/// Images that are asked for at a time.
const LOOKUPS: usize = 8;

/// The policy of one pod.
#[derive(Debug, Clone)]
pub struct Policy {
    /// `Deployment web`, …
    pub name: String,
    /// What it allows.
    pub document: Document,
    /// What is known of its containers' users from their images, in the order of the containers.
    pub of_images: Vec<OfImage>,
    pub(crate) workload: usize,
}

/// What was made of the files.
#[derive(Debug)]
pub struct Generated {
    /// One for each pod, in the order of the files.
    pub policies: Vec<Policy>,
    /// What should be known.
    pub warnings: Vec<Problem>,
    /// What each name of an image means now.
    pub images: BTreeMap<String, Image>,
    pub(crate) inputs: Inputs,
}

/// Makes a policy for each pod of the files; `others` are files with ConfigMaps and Secrets only.
///
/// # Errors
///
/// [`Problems`] has all that is wrong with the files.
pub fn generate(
    pods: Vec<Text>,
    others: Vec<Text>,
    reading: &Reading,
    images: &Images,
    choices: &Choices,
) -> Result<Generated, Problems> {
    let mut inputs = Inputs::read(pods, others, reading);
    let mut problems = std::mem::take(&mut inputs.problems);
    let found = look_up(&inputs, images, &mut problems);
    let mut policies = Vec::new();
    for (number, workload) in inputs.workloads.iter().enumerate() {
        let mut derivation = Derivation {
            inputs: &inputs,
            workload,
            choices,
            images: &found,
            problems: Vec::new(),
        };
        let document = derivation.document();
        let of_images = containers(workload).into_iter().zip(&document.containers);
        let of_images = of_images.map(|((_, _, container), made)| {
            let users = found
                .get(&container.image)
                .and_then(|image| image.users.as_ref());
            users.map_or_else(OfImage::default, |users| users.of(made.user.uid))
        });
        let of_images = of_images.collect();
        problems.append(&mut derivation.problems);
        policies.push(Policy {
            name: format!("{} {}", workload.kind, workload.name),
            document,
            of_images,
            workload: number,
        });
    }
    if policies.is_empty() && !Problems::any_error(&problems) {
        problems.push(nothing(&inputs));
    }
    problems.sort_by(|one, other| (&one.file, one.line).cmp(&(&other.file, other.line)));
    if Problems::any_error(&problems) {
        return Err(Problems(problems));
    }
    Ok(Generated {
        policies,
        warnings: problems,
        images: found,
        inputs,
    })
}

fn nothing(inputs: &Inputs) -> Problem {
    Problem {
        severity: Severity::Error,
        file: inputs
            .files
            .first()
            .map_or_else(String::new, |file| file.name.clone()),
        line: 1,
        path: String::new(),
        message: "there is no pod in these files, and nothing that makes pods".to_owned(),
    }
}

/// A use of an image: by which container of which workload.
struct Use<'a> {
    workload: &'a Workload,
    at: String,
    needs_users: Box<dyn Fn(&str) -> bool + Send + Sync + 'a>,
}

/// All images that containers name, each looked up once.
fn look_up(
    inputs: &Inputs,
    images: &Images,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, Image> {
    let mut uses: BTreeMap<&str, Vec<Use<'_>>> = BTreeMap::new();
    for workload in &inputs.workloads {
        let pod = &workload.template.spec.security_context;
        for (_, at, container) in containers(workload) {
            if !container.image.is_empty() {
                uses.entry(&container.image).or_default().push(Use {
                    workload,
                    at: format!("{at}.image"),
                    needs_users: Box::new(move |user| needs_users(pod, container, user)),
                });
            }
        }
    }
    let mut found = BTreeMap::new();
    for (name, looked_up) in all_at_once(&uses, images) {
        match looked_up {
            Ok(image) => {
                found.insert(name.to_owned(), image);
            }
            Err(error) => {
                let error = agent_image_registry::sentence(&error);
                for Use { workload, at, .. } in uses.get(name).into_iter().flatten() {
                    let error = error.clone();
                    problems.push(inputs.problem_of(workload, at, error, Severity::Error));
                }
            }
        }
    }
    found
}

type LookedUp<'a> = (&'a str, Result<Image, ImageError>);

/// Asks for several images at a time: most of it is waiting for registries.
fn all_at_once<'a>(uses: &BTreeMap<&'a str, Vec<Use<'_>>>, images: &Images) -> Vec<LookedUp<'a>> {
    let queue = Mutex::new(uses.iter());
    let done = Mutex::new(Vec::new());
    // A function, so that nothing is held while an image is looked up.
    let next = || held(&queue).next();
    let work = || {
        while let Some((name, uses)) = next() {
            let found = one(name, uses, images);
            held(&done).push((*name, found));
        }
    };
    thread::scope(|scope| {
        for _ in 0..LOOKUPS.min(uses.len()) {
            scope.spawn(work);
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(name, _)| *name);
    done
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn one(name: &str, uses: &[Use<'_>], images: &Images) -> Result<Image, ImageError> {
    let mut image = images.find(name)?;
    let user = image.config.user.clone();
    if images.all_users || uses.iter().any(|one| (one.needs_users)(&user)) {
        images.look_up_users(&mut image)?;
    }
    Ok(image)
}
