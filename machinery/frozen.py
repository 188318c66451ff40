"""The frozen layers: from uint8 images to features for the trained layers."""
import numpy as np

from machinery.feature_key import feature_key
from machinery.store import Store


class FrozenLayers:
    """A function from uint8 images (n, height, width, 3) to features (n, ...).

    Args:
        session: has the variables' values, which must not change after this.
        layer: tensor, the features; pictures itself if nothing is frozen.
        pictures: placeholder for images.
        feed: {placeholder: value} for the others, for example {keep_prob: 1.}.
        same_as: {tensor: tensor of the same value}, for example {dropout6: fc6} while
            dropout is off.
    """

    def __init__(self, session, layer, pictures, feed, same_as):
        self._session, self._layer, self._same_as = session, layer, same_as
        self._pictures, self._feed = pictures, feed

    def __call__(self, images):
        """Return the features of images."""
        return self.run(self._layer, images)

    def run(self, tensor, images):
        """Return the value of any tensor for images."""
        return self._session.run(tensor, {self._pictures: images, **self._feed})

    def run_behind(self, tensor, features, batch_size):
        """Return (values, samples): a tensor (n, ...) for Features, and their samples.

        The tensor must depend on the layer alone, because only features are fed.
        """
        values = [np.zeros([0] + tensor.shape.as_list()[1:], np.float32)]
        samples = []
        for batch in features.batches(batch_size):
            if len(batch.samples):
                values.append(self._session.run(tensor, {self._layer: batch.images}))
                samples += batch.samples.tolist()
        return np.concatenate(values), samples

    def open_store(self, folder, limit, load_image):
        """Return the Store for the features, or None if no layer is frozen.

        folder, limit: see Store; load_image: see feature_key.
        """
        if self._layer.op.type == 'Placeholder':
            return None
        key = feature_key(self._session, self._layer, self._same_as, load_image)
        return Store(self._layer.shape.as_list()[1:], folder, key, limit)
