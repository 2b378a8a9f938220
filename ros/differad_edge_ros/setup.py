"""colcon builds this; without ROS's tools, ``pip install ros/differad_edge_ros`` does as well."""

from glob import glob

from setuptools import setup

NAME = "differad_edge_ros"

setup(
    name=NAME,
    version="0.1.0",
    packages=[NAME],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", glob("launch/*.launch.py")),
        (f"share/{NAME}/config", glob("config/*")),
        (f"share/{NAME}/rviz", glob("rviz/*.rviz")),
    ],
    install_requires=["setuptools"],  # differad-edge comes from pip: colcon would look for it among its packages
    zip_safe=True,
    maintainer="The differad-edge maintainers",
    maintainer_email="maintainers@differad-edge.invalid",
    description="Visual inspection against a golden sample as a managed ROS 2 node",
    license="Apache-2.0",
    entry_points={"console_scripts": [f"inspector = {NAME}.node:main"]},
)
