from .driver import BatchCounts as BatchCounts
from .driver import predict_all as predict_all
