//! Losses of the modern methods with their gradients, on the CPU and on the device that tests have.

use super::case::{Case, golden};
use autograd::{Var, ops};
use engine::{DType, Device, Tensor};
use kernels::testing;
use objectives::branch::unit;
use objectives::distillation::{Centering, Rows, Teacher, crops};
use objectives::{byol, dinov2, mae, moco_v3};

golden! {
    moco_v3_both_directions: "moco_v3" => on_both_devices::<MocoV3>,
    byol_both_directions: "byol" => on_both_devices::<Byol>,
    dino_first_step: "dino_step0" => on_both_devices::<Dino>,
    dino_second_step: "dino_step1" => on_both_devices::<Dino>,
    dino_third_step: "dino_step2" => on_both_devices::<Dino>,
    ibot_masked_patches: "ibot_patch" => on_both_devices::<Ibot>,
    mae_pixels: "mae_norm_false" => on_both_devices::<Mae>,
    mae_normalised_pixels: "mae_norm_true" => on_both_devices::<Mae>,
}

/// A loss that is checked against a case on a device.
trait Check {
    fn check(case: &Case, device: Device);
}

fn on_both_devices<C: Check>(case: &Case) {
    C::check(case, Device::Cpu);
    C::check(case, testing::device());
}

/// A case's tensors on a device.
struct On<'a> {
    case: &'a Case,
    device: Device,
}

impl On<'_> {
    fn tensor(&self, name: &str) -> Tensor {
        self.case.inside(name).to_device(self.device).unwrap()
    }

    fn leaf(&self, name: &str) -> Var {
        Var::leaf(self.tensor(name))
    }

    /// The loss and the gradients of the leaves; see [`Case::check`] for `terms`.
    fn check(&self, loss: &Var, leaves: &[(&str, &Var)], terms: usize) {
        let back = |x: &Tensor| x.to_device(Device::Cpu).unwrap();
        self.case.check("out", &back(loss.value()), terms);
        loss.backward().unwrap();
        for (name, leaf) in leaves {
            self.case.check(&format!("grad.{name}"), &back(&leaf.gradient().unwrap()), terms);
        }
    }
}

struct MocoV3;

impl Check for MocoV3 {
    fn check(case: &Case, device: Device) {
        let on = On { case, device };
        let (q1, q2) = (on.leaf("q1"), on.leaf("q2"));
        let key = |name: &str| unit(&Var::constant(on.tensor(name))).unwrap();
        let temperature = case.number("temperature") as f32;
        let contrast = |q: &Var, k: &str| moco_v3::contrast(&unit(q).unwrap(), &key(k), temperature).unwrap();
        let loss = ops::add(&contrast(&q1, "k2"), &contrast(&q2, "k1")).unwrap();
        // Cosines of 16 products, divided by 0.2 and multiplied by 0.4 after the logarithm: as InfoNCE with a queue.
        on.check(&loss, &[("q1", &q1), ("q2", &q2)], 16 * 25);
    }
}

struct Byol;

impl Check for Byol {
    fn check(case: &Case, device: Device) {
        let on = On { case, device };
        let (p0, p1) = (on.leaf("p0"), on.leaf("p1"));
        let target = |name: &str| unit(&Var::constant(on.tensor(name))).unwrap();
        let one = |p: &Var, z: &str| byol::regression(&unit(p).unwrap(), &target(z)).unwrap();
        let loss = ops::add(&one(&p0, "z1"), &one(&p1, "z0")).unwrap();
        on.check(&loss, &[("p0", &p0), ("p1", &p1)], 7 * 16);
    }
}

struct Dino;

impl Check for Dino {
    fn check(case: &Case, device: Device) {
        let on = On { case, device };
        let students: Vec<Var> = (0..4).map(|i| on.leaf(&format!("student{i}"))).collect();
        let teachers = [on.tensor("teacher0"), on.tensor("teacher1")];
        let logits = kernels::copy::cat(&teachers.each_ref(), 0).unwrap();
        let mut teacher = Teacher::new(Centering::Center, case.number("center_momentum") as f32, 24).unwrap();
        teacher.buffer().set(on.tensor("center_before").to_device(Device::Cpu).unwrap()).unwrap();
        *teacher.buffer().value_mut() = teacher.center().to_device(device).unwrap();
        let temperature = Tensor::from_slice(&[case.number("teacher_temperature") as f32], &[1]).unwrap();
        let temperature = temperature.to_device(device).unwrap();
        let targets = teacher.targets(&logits, &temperature, None).unwrap();
        let student = ops::cat(&students.iter().collect::<Vec<_>>(), 0).unwrap();
        let loss =
            crops(&student, &targets.distributions, case.number("student_temperature") as f32).unwrap();
        let names = ["student0", "student1", "student2", "student3"];
        let leaves: Vec<(&str, &Var)> = names.into_iter().zip(&students).collect();
        // Logits of order 1 are divided by 0.04 before the exponential: 25 units each, over 24 prototypes.
        on.check(&loss, &leaves, 24 * 25);
        teacher.after_step().unwrap();
        case.check("center_after", &teacher.center().to_device(Device::Cpu).unwrap(), 10);
    }
}

struct Ibot;

impl Check for Ibot {
    fn check(case: &Case, device: Device) {
        let on = On { case, device };
        let mask = case.tensor("mask").to_vec::<u8>().unwrap();
        let counts: Vec<usize> =
            mask.chunks(16).map(|image| image.iter().map(|m| *m as usize).sum()).collect();
        let (images, rows) = (counts.len(), counts.iter().sum::<usize>());
        // One row of padding, of any content, which must change nothing.
        let padded = |x: Tensor| {
            let more = Tensor::full(&[1, 24], 3.0, device).unwrap();
            kernels::copy::cat(&[&x, &more], 0).unwrap()
        };
        let put = |values: Vec<f32>| {
            let values = [values, vec![0.0]].concat();
            Tensor::from_slice(&values, &[rows + 1]).unwrap().to_device(device).unwrap()
        };
        let weight = put(counts.iter().flat_map(|n| vec![1.0 / *n as f32; *n]).collect());
        let share = put(vec![1.0 / rows as f32; rows]);
        let count = Tensor::from_slice(&[rows as i32], &[1]).unwrap().to_device(device).unwrap();
        let mut teacher = Teacher::new(Centering::Center, case.number("center_momentum") as f32, 24).unwrap();
        *teacher.buffer().value_mut() = teacher.center().to_device(device).unwrap();
        let temperature = Tensor::from_slice(&[case.number("teacher_temperature") as f32], &[1]).unwrap();
        let temperature = temperature.to_device(device).unwrap();
        let logits = padded(on.tensor("teacher"));
        let targets = teacher.targets(&logits, &temperature, Some(&Rows { count, share })).unwrap();
        let student = on.leaf("student");
        let more = Var::constant(Tensor::full(&[1, 24], -2.0, device).unwrap());
        let all = ops::cat(&[&student, &more], 0).unwrap();
        let tau = case.number("student_temperature") as f32;
        let loss = dinov2::masked_patches(&all, &targets.distributions, &weight, images, tau).unwrap();
        on.check(&loss, &[("student", &student)], 24 * 20);
        teacher.after_step().unwrap();
        case.check("center_after", &teacher.center().to_device(Device::Cpu).unwrap(), 11);
    }
}

struct Mae;

impl Check for Mae {
    fn check(case: &Case, device: Device) {
        let on = On { case, device };
        let (images, patch) = (on.tensor("images"), case.count("patch"));
        let removed = case.tensor("removed").to_vec::<u8>().unwrap();
        let rows: Vec<i32> = (0..removed.len()).filter(|i| removed[*i] == 1).map(|i| i as i32).collect();
        let rows = Tensor::from_slice(&rows, &[rows.len()]).unwrap().to_device(device).unwrap();
        let patches = mae::patchify(&images, patch).unwrap().reshape(&[3, 16, 48]).unwrap();
        assert_eq!(
            patches.to_vec::<f32>().unwrap(),
            case.tensor("patches").to_vec::<f32>().unwrap(),
            "rows, columns, channels"
        );
        let targets = mae::targets(&images, patch, case.flag("normalize_targets")).unwrap();
        assert_eq!(targets.dtype(), DType::F32);
        let prediction = on.leaf("prediction");
        let loss = mae::reconstruction(&prediction, &targets, &rows).unwrap();
        on.check(&loss, &[("prediction", &prediction)], 48);
    }
}
