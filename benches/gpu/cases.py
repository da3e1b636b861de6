"""What is timed, most important first: the shapes of ViT-S/B/L, MAE, DINO and ResNet-50 training.

A case is a dictionary: `family` for the table, `dtype`, `case` as the library takes it (src/families/), and `compile` where
PyTorch's compiler is asked too, which takes long: such cases come last.
"""

# Tokens of 256 images of 224 pixels in patches of 16, with the class token.
TOKENS = 256 * 197


def identity(case):
    """The case's name: kind, sizes and type."""
    sizes = " ".join(_word(name, value) for name, value in case["case"].items() if name != "kind")
    return f"{case['case']['kind']} {sizes} {case['dtype']}" + (" beside torch.compile" if case.get("compile") else "")


def _word(name, value):
    if isinstance(value, list):
        return f"{name}={len(value)}x{sum(value)}"
    return str(value) if isinstance(value, str) else f"{name}={value}"


def _case(family, kind, dtype="bf16", compile=False, **sizes):
    case = {"family": family, "dtype": dtype, "case": {"kind": kind, **sizes}}
    return {**case, "compile": True} if compile else case


def vit_parameters(width=768, depth=12, hidden=3072, patch=768):
    """Sizes of a Vision Transformer's parameters."""
    block = [width, width, 3 * width * width, 3 * width, width * width, width, width, width, hidden * width, hidden, width * hidden, width]
    return [width, 197 * width, patch * width, width] + depth * block + [width, width]


def resnet50_parameters():
    """Sizes of ResNet-50's parameters without its classifier."""
    sizes, channels = [64 * 3 * 49, 64, 64], 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            sizes += [width * channels, width, width, width * width * 9, width, width, 4 * width * width, 4 * width, 4 * width]
            if block == 0:
                sizes += [4 * width * channels, 4 * width, 4 * width]
            channels = 4 * width
    return sizes


def resnet50_convolutions():
    """(side, channels, filters, kernel, stride) of every different convolution, the most frequent kinds first."""
    stages = ((56, 64, 64), (56, 256, 128), (28, 512, 256), (14, 1024, 512))
    middle, narrow, widen, strided, shortcut, first = [], [], [], [], [], []
    for stage, (side, channels, width) in enumerate(stages):
        inner = side if stage == 0 else side // 2
        middle.append((inner, width, width, 3, 1))
        narrow.append((inner, 4 * width, width, 1, 1))
        widen.append((inner, width, 4 * width, 1, 1))
        first.append((side, channels, width, 1, 1))
        if stage > 0:
            strided.append((side, width, width, 3, 2))
            shortcut.append((side, channels, 4 * width, 1, 2))
    return middle + narrow + widen + strided + [(224, 3, 64, 7, 2)] + shortcut + first


def _products():
    yield _case("matmul", "matmul", m=4096, n=4096, k=4096)
    for m, n, k in ((TOKENS, 3072, 768), (TOKENS, 768, 3072), (TOKENS, 2304, 768), (TOKENS, 768, 768),
                    (TOKENS, 1536, 384), (TOKENS, 384, 1536), (TOKENS, 1152, 384), (TOKENS, 384, 384), (128 * 197, 4096, 1024)):
        yield _case("linear", "linear", m=m, n=n, k=k)
    # The gradients of ViT-B's first MLP layer: of its input, and of its weight over all tokens.
    yield _case("linear gradients", "matmul", m=TOKENS, n=768, k=3072)
    yield _case("linear gradients", "matmul", m=3072, n=768, k=TOKENS, transpose_a=True)
    yield _case("linear gradients", "matmul", m=1536, n=384, k=TOKENS, transpose_a=True)
    yield _case("linear + gelu", "linear_gelu", m=TOKENS, n=3072, k=768)
    for n in (8192, 2048, 1024):
        yield _case("matmul", "matmul", m=n, n=n, k=n)


def _attention():
    shapes = ((256, 197, 12, 64), (256, 197, 6, 64), (256, 50, 12, 64), (512, 37, 6, 64), (256, 197, 16, 32), (128, 257, 12, 64), (64, 577, 12, 64))
    for samples, tokens, heads, size in shapes:
        for direction in ("forward", "backward"):
            yield _case(f"attention {direction}", "attention", direction=direction, samples=samples, tokens=tokens, heads=heads, size=size)


def _norms(dtype="bf16"):
    for width in (768, 384):
        for residual in (False, True):
            for direction in ("backward", "forward"):
                yield _case(f"layer norm {direction}", "layer_norm", dtype, direction=direction, rows=TOKENS, width=width, residual=residual)
    for side, channels, residual in ((56, 64, False), (56, 256, True), (28, 512, True), (7, 2048, True)):
        for direction in ("backward", "forward"):
            yield _case(f"batch norm {direction}", "batch_norm", dtype, direction=direction, images=256, side=side, channels=channels,
                        residual=residual)


def _losses():
    for rows, classes in ((4096, 1000), (768, 65536), (8192, 32768)):
        yield _case("softmax cross-entropy", "cross_entropy", direction="both", rows=rows, classes=classes)


def _optimisers():
    yield _case("optimisers", "adamw", "f32", sizes=vit_parameters())
    yield _case("optimisers", "adamw", "f32", sizes=vit_parameters(), average=True)
    yield _case("optimisers", "sgd", "f32", sizes=resnet50_parameters())


def _ntxent():
    for pairs in (4096, 2048, 512, 8192):
        for dtype in ("bf16", "f32"):
            yield _case("nt-xent", "ntxent", dtype, direction="both", pairs=pairs, width=128)
    yield _case("nt-xent", "ntxent", direction="forward", pairs=4096, width=128)


def _memory():
    for what, dtype in (("scale", "f32"), ("scale", "bf16"), ("cast", "f32"), ("gelu", "bf16"), ("transpose", "bf16")):
        yield _case("memory", "elementwise", dtype, what=what, rows=16384, columns=8192)


def _compiled():
    yield _case("linear + gelu", "linear_gelu", compile=True, m=TOKENS, n=3072, k=768)
    yield _case("layer norm backward", "layer_norm", compile=True, direction="backward", rows=TOKENS, width=768, residual=True)
    yield _case("nt-xent", "ntxent", compile=True, direction="both", pairs=4096, width=128)
    yield _case("batch norm backward", "batch_norm", compile=True, direction="backward", images=256, side=56, channels=256, residual=True)
    yield _case("softmax cross-entropy", "cross_entropy", compile=True, direction="both", rows=768, classes=65536)


def _convolutions():
    for side, channels, filters, kernel, stride in resnet50_convolutions():
        for which in ("forward", "input_gradient", "weight_gradient"):
            # Nobody needs the gradient of the images.
            if channels == 3 and which == "input_gradient":
                continue
            yield _case(f"conv2d {which.replace('_', ' ')}", "conv2d", **{"pass": which}, images=256, side=side, channels=channels,
                        filters=filters, kernel=kernel, stride=stride)


def full():
    """All cases for hardware, most important first: some of every family, then the rest, then what PyTorch compiles."""
    groups = [
        (list(_products()), lambda case: case["family"] in ("linear", "matmul") and case["case"].get("n") not in (1024, 2048, 8192)),
        (list(_attention()), lambda case: case["case"]["tokens"] == 197 and case["case"]["size"] == 64),
        (list(_convolutions()), lambda case: case["case"]["kernel"] == 3 and case["case"]["stride"] == 1),
        (list(_norms()), lambda case: case["case"]["direction"] == "backward"
         and case["case"].get("width", 768) == 768 and case["case"].get("side", 56) == 56),
        (list(_losses()), lambda case: case["case"]["rows"] == 4096),
        (list(_optimisers()), lambda case: True),
        (list(_ntxent()), lambda case: case["case"]["pairs"] == 4096),
        (list(_memory()), lambda case: case["case"]["what"] == "scale"),
    ]
    first = [case for group, chosen in groups for case in group if chosen(case)]
    rest = [case for group, chosen in groups for case in group if not chosen(case)]
    return first + rest + list(_compiled())


def toy():
    """Every kind in both types at sizes that the emulated device runs at once."""
    cases = []
    for dtype in ("f32", "bf16"):
        add = lambda family, kind, **sizes: cases.append(_case(family, kind, dtype, **sizes))
        add("matmul", "matmul", m=33, n=40, k=65)
        add("matmul", "matmul", m=64, n=64, k=64, transpose_b=True)
        add("linear gradients", "matmul", m=40, n=24, k=130, transpose_a=True)
        add("linear", "linear", m=50, n=48, k=64)
        add("linear + gelu", "linear_gelu", m=33, n=32, k=64)
        for direction in ("forward", "backward"):
            add(f"attention {direction}", "attention", direction=direction, samples=2, tokens=37, heads=2, size=32)
            add(f"layer norm {direction}", "layer_norm", direction=direction, rows=19, width=96)
            add(f"layer norm {direction}", "layer_norm", direction=direction, rows=19, width=96, residual=True)
            add(f"batch norm {direction}", "batch_norm", direction=direction, images=3, side=5, channels=24)
            add(f"batch norm {direction}", "batch_norm", direction=direction, images=3, side=5, channels=24, residual=True)
        for which in ("forward", "input_gradient", "weight_gradient"):
            for channels, kernel, stride in ((16, 3, 1), (16, 1, 1), (8, 3, 2), (3, 7, 2)):
                add(f"conv2d {which.replace('_', ' ')}", "conv2d", **{"pass": which}, images=2, side=9, channels=channels, filters=16,
                    kernel=kernel, stride=stride)
        for direction in ("forward", "backward", "both"):
            add("softmax cross-entropy", "cross_entropy", direction=direction, rows=9, classes=130)
            add("nt-xent", "ntxent", direction=direction, pairs=21, width=32)
        add("optimisers", "adamw", sizes=[300, 17, 1])
        add("optimisers", "adamw", sizes=[300, 17, 1], average=True)
        add("optimisers", "sgd", sizes=[300, 17, 1])
        for what in ("scale", "transpose", "cast", "gelu"):
            add("memory", "elementwise", what=what, rows=33, columns=40)
    return cases
