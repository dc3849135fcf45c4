"""tf.data: files, decode_and_crop_jpeg, tf.image.resize with or without antialias, mirror."""

import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import harness
import tensorflow as tf
from harness import MEAN, RESIZE_PX, SIZE_PX, STD


def _train_image(data, antialias):
    begin, size, _ = tf.image.sample_distorted_bounding_box(
        tf.image.extract_jpeg_shape(data),
        bounding_boxes=tf.zeros([1, 0, 4]),
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1.0),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    window = tf.concat([begin[:2], size[:2]], axis=0)
    image = tf.image.decode_and_crop_jpeg(data, window, channels=3)
    image = tf.image.resize(image, (SIZE_PX, SIZE_PX), antialias=antialias)
    return tf.image.random_flip_left_right(image)


def _eval_image(data, antialias):
    """Decode and resize only the square that Resize and CenterCrop keep."""
    shape = tf.image.extract_jpeg_shape(data)
    side = tf.minimum(shape[0], shape[1]) * SIZE_PX // RESIZE_PX
    window = tf.stack([(shape[0] - side) // 2, (shape[1] - side) // 2, side, side])
    image = tf.image.decode_and_crop_jpeg(data, window, channels=3)
    return tf.image.resize(image, (SIZE_PX, SIZE_PX), antialias=antialias)


def _make_load(spec):
    make = _train_image if spec["transform"] == "train" else _eval_image

    def load(path):
        image = make(tf.io.read_file(path), spec["antialias"])
        if spec["dtype"] == "uint8":
            return tf.cast(image + 0.5, tf.uint8)
        return tf.transpose((image / 255.0 - MEAN) / STD, (2, 0, 1))

    return load


def open_stream(spec):
    tf.config.threading.set_intra_op_parallelism_threads(spec["workers"])
    tf.config.threading.set_inter_op_parallelism_threads(spec["workers"])
    options = tf.data.Options()
    options.threading.private_threadpool_size = spec["workers"]
    paths = sorted(str(path) for path in pathlib.Path(spec["images"]).glob("*/*"))
    data = (
        tf.data.Dataset.from_tensor_slices(paths)
        .shuffle(len(paths), reshuffle_each_iteration=True)
        .repeat()
        .map(_make_load(spec), num_parallel_calls=spec["workers"], deterministic=False)
        .batch(spec["batch_size"], drop_remainder=True)
        .prefetch(2)
        .with_options(options)
    )
    return harness.Stream(data.as_numpy_iterator())


if __name__ == "__main__":
    harness.main(open_stream, ["tensorflow-cpu", "tensorflow", "numpy"])
