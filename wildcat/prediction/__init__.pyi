from .items import Failure as Failure
from .items import Item as Item
from .items import image_items as image_items
from .loading import IMAGENET as IMAGENET
from .loading import load as load
from .predictor import Predictor as Predictor
from .result import Prediction as Prediction
from .result import Threshold as Threshold
