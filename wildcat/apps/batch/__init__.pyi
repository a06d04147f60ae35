from .driver import predict_all as predict_all
