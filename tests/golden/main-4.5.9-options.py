# Says what the camera sees. For OpenMV firmware 4.5.6 to 4.6.20; written by keras_omv.
# Copy main.py, model.tflite and labels.txt to the camera's USB drive, eject it, reset.
import gc
import os
import sys
import time

from machine import Pin

MODEL = "model.tflite"
LABELS = "labels.txt"  # one label a line, in the order of the model's outputs
TOP = 3  # labels to print for each picture
SETTLE_MS = 2000  # time for the camera to find its exposure
SMOOTH = 5  # pictures whose scores are averaged
THRESHOLD = 0.6  # a best score below it counts as unsure
ROI = (40, 0, 240, 240)  # where to look in the 320x240 picture: x, y, width, height
SAVE_TO = "saved"  # with a folder for each label; on the SD card, if there is one
SAVE_BELOW = 0.6  # pictures with a lower best score are saved
SAVE_BUTTON = "P0"  # a pin; a button to ground saves what the camera sees
SAVE_PAUSE_MS = 1000  # from one saved picture to the next

COPY = ("Copy main.py, %s and %s to the camera's USB drive, eject it and reset the "
        "camera." % (MODEL, LABELS))
SHRINK = "Use a smaller one: lower alpha or resolution."
ADVICE = (  # what to do, by what is in the firmware's error
    ("llocate", "The model needs more RAM than this camera has in one piece, or an "
     "operation that this firmware lacks. " + SHRINK),
    ("schema", "The file is damaged or no .tflite model. " + COPY),
    ("rame buffer", "The model leaves too little memory for pictures. " + SHRINK),
    ("ixel format", "This camera's sensor does not give what the model needs: export "
     "it for grey pictures (1 channel) or for colour (3)."),
)


def on_class(label, confidence):
    # Called after each picture. Here goes what the camera is to do about it.
    # Below THRESHOLD the label is "unsure".
    pass


def stop(problem, advice):
    print("\nSTOPPED: %s\n%s" % (problem, advice))
    raise SystemExit(1)


def advice_for(error, otherwise):
    if isinstance(error, MemoryError):
        return "The model is too big for this camera's RAM. " + SHRINK
    for text, advice in ADVICE:
        if text in str(error):
            return advice
    return otherwise


def is_there(path):
    try:
        os.stat(path)
        return True
    except OSError:
        return False


def read_labels(path):
    with open(path) as lines:
        labels = [line.rstrip("\r\n") for line in lines]
    return [label for label in labels if label]


def load(reader, path):
    gc.collect()
    try:
        return reader(path)
    except (OSError, MemoryError, ValueError, RuntimeError) as error:
        gc.collect()
        stop("%s did not load: %s" % (path, error), advice_for(error, COPY))


def load_model(path):
    try:
        return ml.Model(path)
    except (MemoryError, ValueError):  # too big for the heap:
        gc.collect()  # keep its weights in the frame buffers' memory
        return ml.Model(path, load_to_fb=True)


def input_size(model):
    height, width, channels = model.input_shape[0][1:]
    return width, height, channels


def classify(model, picture):
    return model.predict([picture])[0].flatten().tolist()


def one_for_each(labels, scores):
    if len(scores) == 1 and len(labels) == 2:  # one sigmoid for two labels
        return [1 - scores[0], scores[0]]
    if len(scores) != len(labels):
        stop("%s has %d labels, the model has %d outputs"
             % (LABELS, len(labels), len(scores)),
             "Copy %s and %s from the same folder." % (MODEL, LABELS))
    return scores


def window(frame_width, frame_height, width, height):
    # The middle part that has the model's shape: the firmware then only scales it.
    # Other shapes are cropped by some releases and stretched by others.
    x, y, frame_width, frame_height = ROI
    part_width = min(frame_width, frame_height * width // height)
    part_height = min(frame_height, frame_width * height // width)
    x += (frame_width - part_width) // 2
    y += (frame_height - part_height) // 2
    return x, y, part_width, part_height


def start_camera(width, height, channels):
    sensor.reset()
    sensor.set_pixformat(sensor.RGB565 if channels == 3 else sensor.GRAYSCALE)
    sensor.set_framesize(sensor.QVGA)  # 320x240
    sensor.set_windowing(window(sensor.width(), sensor.height(), width, height))
    sensor.skip_frames(time=SETTLE_MS)
    return sensor


saved_ms = time.ticks_ms()
numbers = {}  # of the last picture in each folder


def is_pause_over():
    return time.ticks_diff(time.ticks_ms(), saved_ms) >= SAVE_PAUSE_MS


def folder_for(label):
    # Some labels are no name for a folder on an SD card: these get a number.
    is_name = all(c.isalpha() or c.isdigit() or c in "-_ " for c in label)
    if not is_name or label != label.strip():
        label = "class_%d" % labels.index(label)
    return SAVE_TO + "/" + label


def save(picture, label):
    global saved_ms
    saved_ms = time.ticks_ms()
    folder = folder_for(label)
    number = numbers.get(folder, 0) + 1
    try:
        for path in (SAVE_TO, folder):
            if not is_there(path):
                os.mkdir(path)
        while is_there("%s/%05d.jpg" % (folder, number)):  # from before the reset
            number += 1
        picture.save("%s/%05d.jpg" % (folder, number), quality=90)
        numbers[folder] = number
        print("Saved %s/%05d.jpg" % (folder, number))
    except (OSError, MemoryError) as error:  # a full card is no reason to stop
        print("Not saved to %s: %s" % (folder, error))


try:
    import sensor
    import ml
except (ImportError, AttributeError) as error:
    stop("this main.py is for firmware 4.5.6 to 4.6.20: %s" % error,
         "Update the camera with OpenMV IDE (press Connect), or export for the "
         "firmware that it has.")

# The model comes first: the camera's frame buffers take what memory it leaves.
gc.collect()
print("Free heap: %d bytes" % gc.mem_free())
if not is_there(MODEL):
    stop("%s is not in %s" % (MODEL, os.getcwd()), COPY)
labels = load(read_labels, LABELS)
model = load(load_model, MODEL)
gc.collect()
print("The model takes %d bytes of RAM. Free heap: %d bytes"
      % (model.ram, gc.mem_free()))

try:
    camera = start_camera(*input_size(model))
    button = Pin(SAVE_BUTTON, Pin.IN, Pin.PULL_UP)
    history = []
    clock = time.clock()
    while True:
        clock.tick()
        picture = camera.snapshot()
        scores = one_for_each(labels, classify(model, picture))
        history = (history + [scores])[-SMOOTH:]
        scores = [sum(column) / len(history) for column in zip(*history)]
        best = sorted(zip(scores, labels), reverse=True)[:TOP]
        confidence = best[0][0]
        label = best[0][1]
        text = ", ".join("%s %.2f" % (name, score) for score, name in best)
        if confidence < THRESHOLD:
            text = "unsure, maybe " + text
        print("%s | %.1f fps" % (text, clock.fps()))
        if (confidence < SAVE_BELOW or button.value() == 0) and is_pause_over():
            save(picture, label)
        on_class(label if confidence >= THRESHOLD else "unsure", confidence)
except (OSError, MemoryError, ValueError, RuntimeError, AttributeError) as error:
    gc.collect()
    sys.print_exception(error)
    stop("the camera stopped: %s" % error,
         advice_for(error, "Reset the camera. If it stops again, check its sensor."))
